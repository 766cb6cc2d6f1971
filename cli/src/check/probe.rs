//! The trial: one wire in scratch namespaces, made by the agent's own code, and one packet through it. What the
//! kernel's release promises is one thing, what it does another.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::limits::DEFAULT_MTU;
use dataplane_user::{
    desired::{
        Branch, Circuit, Desired, End, IfName, Mac, Neighbour, NetnsId, NetnsRef, Payload, Route, VethEnd,
        Wire, WireId,
    },
    kernel::Kernel,
    loader::{Backend, Config},
    reconcile::Reconciler,
};
use tieline_lab::{BpfFs, NetNs, PingPlan, ping};

/// Addresses for documentation (RFC 5737); the namespaces are nobody else's.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Enough for one wire, so that the trial costs no memory.
const MAX_WIRES: u32 = 2;

/// Makes the wire with this back end, sends the packet, removes everything; the back end's name.
pub(crate) fn trial(backend: Backend) -> Result<&'static str> {
    let bpffs = BpfFs::new()?;
    let (node, client, endpoint) = (
        NetNs::new("check-n")?,
        NetNs::new("check-c")?,
        NetNs::new("check-e")?,
    );
    let config = Config {
        bpffs: bpffs.path().to_owned(),
        max_wires: MAX_WIRES,
        backend,
        ..Config::new("check")
    };
    let plan = plan(&client, &endpoint)?;
    let used = node.run(|| {
        let mut reconciler = Reconciler::new(Kernel::open(&config)?);
        let outcome = reconciler.snapshot(plan, Instant::now())?;
        let failures = outcome
            .failures
            .iter()
            .map(|failure| failure.message.as_str())
            .collect::<Vec<_>>();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(reconciler.description().attach_backend)
    })?;
    let one = PingPlan {
        count: 1,
        ..PingPlan::default()
    };
    ping(&client, ENDPOINT.into(), one)?
        .assert_all_answered()
        .context("a packet through a wire of the trial")?;
    Ok(used)
}

fn plan(client: &NetNs, endpoint: &NetNs) -> Result<Desired> {
    let id = WireId("check".to_owned());
    let macs = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    let wire = Wire {
        id: id.clone(),
        network_service: "check".to_owned(),
        payload: Payload::Ip,
        mtu: DEFAULT_MTU,
        client: end(client, (CLIENT, macs[0]), (ENDPOINT, macs[1]))?,
        branches: vec![Branch::all(Circuit {
            hops: Vec::new(),
            endpoint_name: "check".to_owned(),
            endpoint: end(endpoint, (ENDPOINT, macs[1]), (CLIENT, macs[0]))?,
        })],
        backup: None,
        draining: Vec::new(),
        probe: false,
    };
    Ok(Desired {
        generation: 1,
        wires: BTreeMap::from([(id, wire)]),
    })
}

fn end(netns: &NetNs, own: (Ipv4Addr, Mac), other: (Ipv4Addr, Mac)) -> Result<End> {
    let (device, inode) = netns.id()?;
    let other_ip = IpAddr::from(other.0);
    Ok(End::Veth(VethEnd {
        netns: NetnsRef {
            path: netns.path(),
            id: NetnsId { device, inode },
        },
        name: IfName::new("wire")?,
        mac: own.1,
        addresses: vec![IpAddr::from(own.0).into()],
        routes: vec![Route {
            prefix: other_ip.into(),
            next_hop: None,
        }],
        neighbours: vec![Neighbour {
            ip: other_ip,
            mac: other.1,
        }],
        forwards: false,
        policies: Vec::new(),
        name_servers: Vec::new(),
    }))
}
