//! The agent's datapath half alone, without control, store and API: what laying wires costs in the kernel.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use dataplane_user::{
    desired::{
        Branch, Change, Circuit, Desired, End, IfName, Mac, Neighbour, NetnsId, NetnsRef, Payload, Route,
        VethEnd, Wire, WireId,
    },
    kernel::Kernel,
    loader::{Backend, Config},
    outcome::Outcome,
    reconcile::Reconciler,
};
use ipnet::IpNet;
use tieline_lab::{BpfFs, NetNs};

/// A node's datapath, driven as the agent drives it.
pub(crate) struct Datapath {
    reconciler: Reconciler<Kernel>,
    generation: u64,
    netns: NetNs,
    _bpffs: BpfFs,
}

impl Datapath {
    /// Loads the programs into a node of its own, with an empty plan.
    pub(crate) fn start(attach: &str) -> Result<Self> {
        let (netns, bpffs) = (NetNs::new("bench-d")?, BpfFs::new()?);
        let mut config = Config::new("bench");
        bpffs.path().clone_into(&mut config.bpffs);
        config.backend = match attach {
            "tcx" => Backend::Tcx,
            "clsact" => Backend::Clsact,
            _ => Backend::Auto,
        };
        let reconciler = netns.run(|| {
            let mut reconciler = Reconciler::new(Kernel::open(&config)?);
            reconciler.adopt()?;
            let empty = Desired {
                generation: 1,
                ..Desired::default()
            };
            reconciler.snapshot(empty, Instant::now())?;
            Ok(reconciler)
        })?;
        Ok(Self {
            reconciler,
            generation: 1,
            netns,
            _bpffs: bpffs,
        })
    }

    /// Lays wires in changes of `batch` each.
    pub(crate) fn lay(&mut self, wires: &[Wire], batch: usize) -> Result<()> {
        wires
            .chunks(batch)
            .try_for_each(|upsert| self.change(upsert.to_vec(), Vec::new()))
    }

    /// Takes wires away in changes of `batch` each.
    pub(crate) fn remove(&mut self, wires: &[Wire], batch: usize) -> Result<()> {
        wires
            .chunks(batch)
            .try_for_each(|gone| self.change(Vec::new(), gone.iter().map(|w| w.id.clone()).collect()))
    }

    fn change(&mut self, upsert: Vec<Wire>, remove: Vec<WireId>) -> Result<()> {
        self.generation += 1;
        let change = Change {
            generation: self.generation,
            upsert,
            remove,
        };
        let Outcome {
            failures, postponed, ..
        } = self
            .netns
            .run(|| Ok(self.reconciler.change(change, Instant::now())?))?;
        ensure!(
            failures.is_empty() && postponed.is_empty(),
            "{failures:?} {postponed:?}"
        );
        Ok(())
    }
}

/// Wire number `n` between two workloads, as control would plan it.
pub(crate) fn wire(n: u32, client: &Arc<NetNs>, endpoint: &Arc<NetNs>) -> Result<Wire> {
    let [a, b, c, d] = (n + 1).to_be_bytes();
    let macs = [Mac([2, 1, a, b, c, d]), Mac([2, 2, a, b, c, d])];
    let base = u32::from(Ipv4Addr::new(10, 208, 0, 0)) + 2 * n;
    let addresses = [Ipv4Addr::from(base), Ipv4Addr::from(base + 1)];
    let end = |netns: &NetNs, side: usize| {
        let (device, inode) = netns.id()?;
        let far = addresses[1 - side];
        anyhow::Ok(End::Veth(VethEnd {
            netns: NetnsRef {
                path: netns.path(),
                id: NetnsId { device, inode },
            },
            name: IfName::new(&format!("w{n}"))?,
            mac: macs[side],
            addresses: vec![IpNet::from(std::net::IpAddr::V4(addresses[side]))],
            routes: vec![Route {
                prefix: std::net::IpAddr::V4(far).into(),
                next_hop: None,
            }],
            neighbours: vec![Neighbour {
                ip: far.into(),
                mac: macs[1 - side],
            }],
            forwards: false,
            policies: Vec::new(),
            name_servers: Vec::new(),
        }))
    };
    Ok(Wire {
        id: WireId(format!("bench-{n}")),
        network_service: "bench".to_owned(),
        payload: Payload::Ip,
        mtu: 1500,
        client: end(client, 0)?,
        branches: vec![Branch::all(Circuit {
            hops: Vec::new(),
            endpoint_name: "bench".to_owned(),
            endpoint: end(endpoint, 1)?,
        })],
        draining: Vec::new(),
        probe: false,
        backup: None,
    })
}
