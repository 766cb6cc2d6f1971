//! A node to test on: the agent's namespace, workloads' namespaces and a bpffs of its own.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Result;
use dataplane_common::{ABI_VERSION, names};
use dataplane_user::{
    desired::{
        Branch, Change, Circuit, Desired, End, IfName, InterfaceEnd, Mac, Neighbour, NetnsId, NetnsRef,
        Payload, Route, VethEnd, Wire, WireId,
    },
    kernel::Kernel,
    loader::{Backend, Config},
    outcome::Outcome,
    reconcile::Reconciler,
};
use tieline_lab::{BpfFs, NetNs};

/// One machine of a test.
pub(crate) struct World {
    pub(crate) agent: NetNs,
    pub(crate) bpffs: BpfFs,
    pub(crate) config: Config,
    /// One test at a time: what must not be left over is looked for in the whole process.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl World {
    pub(crate) fn new(label: &str, backend: Backend) -> Result<Self> {
        // A test that failed before is no reason to fail this one.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = NetNs::new(&format!("{label}-agent"))?;
        let bpffs = BpfFs::new()?;
        let mut config = Config::new("n1");
        config.bpffs = bpffs.path().to_owned();
        config.max_wires = 1024;
        config.backend = backend;
        Ok(Self {
            agent,
            bpffs,
            config,
            _turn: turn,
        })
    }

    /// The folder of attachments' records.
    pub(crate) fn links(&self) -> PathBuf {
        self.bpffs
            .path()
            .join(format!("{}/v{ABI_VERSION}/{}", names::PIN_ROOT, names::PIN_LINKS))
    }

    /// An agent that starts: opens the datapath and adopts what is there.
    pub(crate) fn start(&self) -> Result<Reconciler<Kernel>> {
        self.agent.run(|| {
            let mut reconciler = Reconciler::new(Kernel::open(&self.config)?);
            reconciler.adopt()?;
            Ok(reconciler)
        })
    }

    /// Carries out a plan in the agent's namespace.
    pub(crate) fn snapshot(
        &self,
        reconciler: &mut Reconciler<Kernel>,
        generation: u64,
        wires: Vec<Wire>,
    ) -> Result<Outcome> {
        self.agent
            .run(|| Ok(reconciler.snapshot(plan(generation, wires), Instant::now())?))
    }

    /// Carries out a change in the agent's namespace.
    pub(crate) fn change(&self, reconciler: &mut Reconciler<Kernel>, change: Change) -> Result<Outcome> {
        self.agent.run(|| Ok(reconciler.change(change, Instant::now())?))
    }

    /// A full pass in the agent's namespace.
    pub(crate) fn pass(&self, reconciler: &mut Reconciler<Kernel>) -> Result<Outcome> {
        self.agent.run(|| Ok(reconciler.pass(Instant::now())?))
    }

    /// Waits until nothing lingers any more, and lets it go.
    pub(crate) fn settle(&self, reconciler: &mut Reconciler<Kernel>) -> Result<()> {
        while let Some(until) = reconciler.lingers_until() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            let outcome = self.agent.run(|| Ok(reconciler.end_lingering(Instant::now())?))?;
            all_well(&outcome)?;
        }
        Ok(())
    }

    /// Names and indexes in the agent's namespace.
    pub(crate) fn interfaces(&self) -> Result<BTreeMap<String, u32>> {
        self.agent.net(|net| {
            Ok(net
                .links()?
                .into_iter()
                .map(|link| (link.name, link.ifindex))
                .collect())
        })
    }
}

pub(crate) fn plan(generation: u64, wires: Vec<Wire>) -> Desired {
    Desired {
        generation,
        wires: wires.into_iter().map(|wire| (wire.id.clone(), wire)).collect(),
    }
}

pub(crate) fn netns_ref(netns: &NetNs) -> Result<NetnsRef> {
    let (device, inode) = netns.id()?;
    Ok(NetnsRef {
        path: netns.path(),
        id: NetnsId { device, inode },
    })
}

pub(crate) fn name(text: &str) -> IfName {
    IfName::new(text).expect("a valid name")
}

pub(crate) fn client_ip(n: u8) -> IpAddr {
    IpAddr::from([10, 60, n, 1])
}

pub(crate) fn endpoint_ip(n: u8) -> IpAddr {
    IpAddr::from([10, 60, n, 2])
}

pub(crate) fn client_ip6(n: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0x60, u16::from(n), 0, 0, 0, 0, 1])
}

pub(crate) fn endpoint_ip6(n: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0x60, u16::from(n), 0, 0, 0, 0, 2])
}

fn veth(
    netns: &NetNs,
    interface: &str,
    mac: Mac,
    own: [IpAddr; 2],
    other: [IpAddr; 2],
    other_mac: Mac,
) -> Result<End> {
    Ok(End::Veth(VethEnd {
        netns: netns_ref(netns)?,
        name: name(interface),
        mac,
        addresses: own.iter().map(|ip| (*ip).into()).collect(),
        routes: other
            .iter()
            .map(|ip| Route {
                prefix: (*ip).into(),
                next_hop: None,
            })
            .collect(),
        neighbours: other
            .iter()
            .map(|ip| Neighbour {
                ip: *ip,
                mac: other_mac,
            })
            .collect(),
        forwards: false,
        policies: Vec::new(),
        name_servers: Vec::new(),
    }))
}

/// Wire number `n` from one workload to another, with IPv4 and IPv6.
pub(crate) fn wire(n: u8, client: &NetNs, endpoint: &NetNs) -> Result<Wire> {
    let macs = [Mac([2, 0, 0, 0, n, 1]), Mac([2, 0, 0, 0, n, 2])];
    let (near, far) = ([client_ip(n), client_ip6(n)], [endpoint_ip(n), endpoint_ip6(n)]);
    Ok(Wire {
        id: WireId(format!("wire-{n}")),
        network_service: "gold".to_owned(),
        payload: Payload::Ip,
        mtu: 1400,
        client: veth(client, &format!("nsm-{n}"), macs[0], near, far, macs[1])?,
        branches: vec![leading_to(veth(
            endpoint,
            &format!("nse-{n}"),
            macs[1],
            far,
            near,
            macs[0],
        )?)],
        backup: None,
        draining: Vec::new(),
        probe: false,
    })
}

/// The only branch of a wire, straight to an endpoint.
pub(crate) fn leading_to(endpoint: End) -> Branch {
    Branch::all(Circuit {
        hops: Vec::new(),
        endpoint_name: "nse-1".to_owned(),
        endpoint,
    })
}

/// The end at a plain wire's endpoint.
pub(crate) fn endpoint_of(wire: &mut Wire) -> &mut End {
    &mut wire.branches.first_mut().expect("a plain wire").circuit.endpoint
}

/// An interface that exists in the agent's namespace.
pub(crate) fn existing(interface: &str) -> End {
    End::Interface(InterfaceEnd {
        name: name(interface),
    })
}

/// Fails with everything that the outcome says, unless all is well.
pub(crate) fn all_well(outcome: &Outcome) -> Result<()> {
    anyhow::ensure!(
        outcome.failures.is_empty() && outcome.postponed.is_empty(),
        "{outcome:#?}"
    );
    Ok(())
}

pub(crate) fn upsert(generation: u64, wires: Vec<Wire>) -> Change {
    Change {
        generation,
        upsert: wires,
        remove: Vec::new(),
    }
}

pub(crate) fn remove(generation: u64, ids: &[&WireId]) -> Change {
    Change {
        generation,
        upsert: Vec::new(),
        remove: ids.iter().map(|id| (*id).clone()).collect(),
    }
}
