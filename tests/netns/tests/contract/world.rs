//! A node with clients and endpoints of every kind, and wires between them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{FrameSocket, Link, Mac, NetNs, eventually, slow};
use tieline_tests_netns::{Api, Mode, Node, Wire, endpoint, netns_url, request, service};

pub(crate) const CLIENTS: usize = 3;
const ENDPOINTS: usize = 2;
/// Every frame that a test injects holds this, followed by its number.
pub(crate) const MARK: &[u8] = b"tieline-contract";

/// What a wire carries and what its endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IP payload, to a workload.
    Ip,
    /// Ethernet payload, to a workload.
    Ethernet,
    /// IP payload, to an existing interface.
    InterfaceIp,
    /// Ethernet payload, to an existing interface.
    InterfaceEthernet,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Ip,
        Self::Ethernet,
        Self::InterfaceIp,
        Self::InterfaceEthernet,
    ];

    fn service(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ethernet => "ethernet",
            Self::InterfaceIp => "interface-ip",
            Self::InterfaceEthernet => "interface-ethernet",
        }
    }

    pub(crate) fn is_ip_only(self) -> bool {
        matches!(self, Self::Ip | Self::InterfaceIp)
    }

    /// The existing interface, and its other end in the machine behind it.
    fn interface(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::InterfaceIp => Some(("tap-ip", "vm-ip")),
            Self::InterfaceEthernet => Some(("tap-eth", "vm-eth")),
            Self::Ip | Self::Ethernet => None,
        }
    }
}

/// An end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Endpoint,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Endpoint,
            Self::Endpoint => Self::Client,
        }
    }
}

/// One end of one of the scenario's wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) wire: usize,
    pub(crate) side: Side,
}

/// A node, workloads, and machines behind existing interfaces.
pub(crate) struct World {
    pub(crate) node: Node,
    api: Api,
    clients: Vec<NetNs>,
    endpoints: Vec<NetNs>,
    machine: NetNs,
    /// Hears what leaves the node by an interface that is no part of any wire.
    bystander: FrameSocket,
}

/// A wire with a listener at each end.
pub(crate) struct LiveWire {
    pub(crate) kind: Kind,
    pub(crate) wire: Wire,
    client: (FrameSocket, Mac),
    endpoint: (FrameSocket, Mac),
}

impl LiveWire {
    pub(crate) fn socket(&self, side: Side) -> &FrameSocket {
        match side {
            Side::Client => &self.client.0,
            Side::Endpoint => &self.endpoint.0,
        }
    }

    pub(crate) fn mac(&self, side: Side) -> Mac {
        match side {
            Side::Client => self.client.1,
            Side::Endpoint => self.endpoint.1,
        }
    }
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let node = Node::start("wire", Mode::Whole)?;
        let api = node.api();
        let many = |label, count| (0..count).map(|_| NetNs::new(label)).collect::<Result<Vec<_>>>();
        let (clients, endpoints) = (many("client", CLIENTS)?, many("endpoint", ENDPOINTS)?);
        let machine = NetNs::new("machine")?;
        // Its kernel would talk of itself otherwise.
        machine.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        for kind in Kind::ALL {
            let payload = if kind.is_ip_only() { "IP" } else { "ETHERNET" };
            api.apply(service(kind.service(), payload))?;
            let Some((tap, inside)) = kind.interface() else {
                for (number, netns) in endpoints.iter().enumerate() {
                    let name = format!("{}-{number}", kind.service());
                    api.register(endpoint(&name, kind.service(), &netns_url(netns)))?;
                }
                continue;
            };
            node.netns()
                .net(|net| net.add_veth(tap, inside, Some(&machine)))?;
            // An existing interface is left as it is, so what its host sends by itself is for the test to stop.
            node.netns()
                .sysctl(&format!("ipv6/conf/{tap}/disable_ipv6"), "1")?;
            node.netns().net(|net| net.set_up(tap))?;
            machine.net(|net| net.set_up(inside))?;
            let name = format!("{}-0", kind.service());
            api.register(endpoint(&name, kind.service(), &format!("interface:///{tap}")))?;
        }
        node.netns()
            .net(|net| net.add_veth("bystander", "outside", Some(&machine)))?;
        node.netns().sysctl("ipv6/conf/bystander/disable_ipv6", "1")?;
        node.netns().net(|net| net.set_up("bystander"))?;
        machine.net(|net| net.set_up("outside"))?;
        let bystander = FrameSocket::open(&machine, "outside")?;
        Ok(Self {
            bystander,
            node,
            api,
            clients,
            endpoints,
            machine,
        })
    }

    /// Requests the wires; of those to an existing interface, which carries one, only the first.
    pub(crate) fn connect(&self, wanted: &[(usize, Kind)]) -> Result<Vec<LiveWire>> {
        let mut wires: Vec<LiveWire> = Vec::new();
        for (number, (client, kind)) in wanted.iter().enumerate() {
            if kind.interface().is_some() && wires.iter().any(|wire| wire.kind == *kind) {
                continue;
            }
            let client = &self.clients[*client];
            let id = format!("contract-{number}");
            let wire = Wire::request(&self.api, request(&id, kind.service(), &netns_url(client)))?;
            let name = &wire.connection.network_service_endpoint_name;
            let (netns, interface) = match kind.interface() {
                Some((_, inside)) => (&self.machine, inside),
                None => (self.endpoint(name)?, wire.endpoint_interface.as_str()),
            };
            wires.push(LiveWire {
                kind: *kind,
                client: listen(client, &wire.client_interface)?,
                endpoint: listen(netns, interface)?,
                wire,
            });
        }
        Ok(wires)
    }

    /// Fails if anything left the node beside its wires.
    pub(crate) fn assert_nothing_escaped(&self) -> Result<()> {
        let escaped = self.bystander.drain(Duration::ZERO)?;
        ensure!(
            escaped.is_empty(),
            "frames left by an interface that is no wire's: {escaped:02x?}"
        );
        Ok(())
    }

    fn endpoint(&self, name: &str) -> Result<&NetNs> {
        let number: usize = name.rsplit('-').next().context("an endpoint's name")?.parse()?;
        self.endpoints
            .get(number)
            .with_context(|| format!("no endpoint {name}"))
    }

    /// Closes the wires and makes sure that nothing of them is left.
    pub(crate) fn disconnect(&self, wires: &[LiveWire]) -> Result<()> {
        for wire in wires {
            self.api.close(wire.wire.connection.clone())?;
        }
        for netns in self.clients.iter().chain(&self.endpoints) {
            eventually(Duration::from_secs(5), "the workload's interfaces to go", || {
                Ok(netns.net(tieline_lab::Net::links)?.len() == 1)
            })?;
        }
        eventually(Duration::from_secs(5), "the positions to go", || {
            Ok(self.node.kernel()?.positions.is_empty())
        })?;
        ensure!(
            self.api.connections()?.is_empty(),
            "control still lists connections"
        );
        Ok(())
    }
}

fn listen(netns: &NetNs, interface: &str) -> Result<(FrameSocket, Mac)> {
    let link: Link = netns.net(|net| net.link(interface))?;
    Ok((FrameSocket::open(netns, interface)?, link.mac))
}

/// A frame that left a wire.
pub(crate) struct Arrival {
    pub(crate) at: End,
    pub(crate) bytes: Vec<u8>,
}

impl Arrival {
    /// Whether it, or what it quotes, was sent by a test.
    fn is_marked(&self) -> bool {
        self.bytes.windows(MARK.len()).any(|window| window == MARK)
    }

    /// A frame that no test injected is the far workload's own (neighbour discovery, a reply), or a fault.
    pub(crate) fn assert_harmless(&self, wires: &[LiveWire]) -> Result<()> {
        let far = wires[self.at.wire].mac(self.at.side.other());
        let from_far = self.bytes.get(6..12) == Some(&far.0);
        // A reply may quote what it answers, but then the far kernel is its sender.
        ensure!(
            from_far,
            "at {:?} left a frame that nobody sent there{}: {:02x?}",
            self.at,
            if self.is_marked() {
                " (it was changed on its way)"
            } else {
                ""
            },
            &self.bytes[..self.bytes.len().min(80)]
        );
        Ok(())
    }
}

/// Everything that leaves at any end: until `complete` says that what must come has come, at most some seconds, and
/// then until it is quiet, for what must not come. The node's probes come all the time.
pub(crate) fn arrivals(wires: &[LiveWire], complete: impl Fn(&[Arrival]) -> bool) -> Result<Vec<Arrival>> {
    let (quiet, patience) = (slow(Duration::from_millis(60)), slow(Duration::from_secs(3)));
    let mut arrivals = Vec::new();
    let (begin, mut last) = (Instant::now(), Instant::now());
    while last.elapsed() < quiet || !(complete(&arrivals) || begin.elapsed() > patience) {
        let before = arrivals.len();
        for (number, wire) in wires.iter().enumerate() {
            for side in [Side::Client, Side::Endpoint] {
                let at = End { wire: number, side };
                let frames = wire.socket(side).drain(Duration::ZERO)?;
                arrivals.extend(frames.into_iter().map(|frame| Arrival {
                    at,
                    bytes: frame.bytes,
                }));
            }
        }
        let mut new = arrivals.iter().skip(before);
        if new.any(Arrival::is_marked) {
            last = Instant::now();
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(arrivals)
}
