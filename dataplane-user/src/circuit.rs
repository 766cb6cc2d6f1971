//! A wire: its client's end, where it leads, and what follows from that for every end of it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::desired::{End, IfName, NetnsId, Payload, Side, WireId};

/// One vWire, all of whose ends lie on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The connection's id.
    pub id: WireId,
    /// The service it carries, for operators.
    pub network_service: String,
    /// What may enter.
    pub payload: Payload,
    /// Octets, of every end.
    pub mtu: u32,
    /// The client's end, which stays as it is wherever the wire leads.
    pub client: End,
    /// Where it leads; none: it is parked.
    pub branches: Vec<Branch>,
    /// What is made beside the branches, to be switched to.
    pub backup: Option<Circuit>,
    /// Circuits that keep the flows that they have, and get no new ones.
    pub draining: Vec<Draining>,
    /// Whether the node watches that the endpoints live.
    pub probe: bool,
}

/// A circuit and the flows that take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The flows: at least one of these must match; none: all that no other branch names. Branches that name the same
    /// share them.
    pub traffic: Vec<Traffic>,
    /// Share among the branches that name the same flows.
    pub weight: u32,
    /// Where the flows go.
    pub circuit: Circuit,
}

/// Flows, as the client sees them. What is not set does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Protocol number; 1 is ICMP and ICMPv6.
    pub protocol: Option<u8>,
    /// The far side's ports, both included.
    pub ports: Option<(u16, u16)>,
    /// The far side's address.
    pub prefix: Option<IpNet>,
}

/// A circuit on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Where flows go that are there.
    pub circuit: Circuit,
    /// Index of the branch that gets the new ones.
    pub branch: usize,
}

/// A way from the client to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// The passthrough functions, from the client's side on.
    pub hops: Vec<Hop>,
    /// The endpoint that terminates, for operators.
    pub endpoint_name: String,
    /// The end there.
    pub endpoint: End,
}

/// A passthrough function: what enters at one of its ends leaves at the other, by its own doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The function, for operators.
    pub endpoint_name: String,
    /// Faces the client.
    pub inside: End,
    /// Faces the endpoint.
    pub outside: End,
}

impl Branch {
    /// The only branch of a plain wire.
    #[must_use]
    pub const fn all(circuit: Circuit) -> Self {
        Self {
            traffic: Vec::new(),
            weight: 1,
            circuit,
        }
    }
}

/// Where a circuit leads, whichever wire it belongs to: the workloads on it, the endpoint last. Wires with one path live
/// and die together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Stop>);

/// A workload on a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stop {
    Netns(NetnsId),
    Interface(IfName),
}

impl Path {
    /// Whether there is nothing between the client and the endpoint.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.len() == 1
    }
}

impl Circuit {
    /// Where it leads.
    #[must_use]
    pub fn path(&self) -> Path {
        let stop = |end: &End| match end {
            End::Veth(veth) => Stop::Netns(veth.netns.id),
            End::Interface(interface) => Stop::Interface(interface.name.clone()),
        };
        let hops = self.hops.iter().map(|hop| stop(&hop.inside));
        Path(hops.chain(std::iter::once(stop(&self.endpoint))).collect())
    }

    /// Its ends, from the client's side on.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        let hops = self.hops.iter().flat_map(|hop| [&hop.inside, &hop.outside]);
        hops.chain(std::iter::once(&self.endpoint))
    }
}

/// An end of a wire, and which way it faces. It is the same end as long as these are the same: what happens between
/// it and the other ends does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facing<'a> {
    /// Which way.
    pub side: Side,
    /// The end.
    pub end: &'a End,
}

impl Facing<'_> {
    /// Whether both mean the same interface: circuits of one wire may share ends.
    #[must_use]
    pub fn is_same(&self, other: &Facing<'_>) -> bool {
        let place = |end: &End| match end {
            End::Veth(veth) => (Some::<NetnsId>(veth.netns.id), veth.name.clone()),
            End::Interface(interface) => (None, interface.name.clone()),
        };
        self.side == other.side && place(self.end) == place(other.end)
    }
}

/// The ends of a wire, each once and the client's first, and where packets that enter at each of them go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    /// The ends.
    pub ends: Vec<Facing<'a>>,
    /// By end, where it leads.
    pub leads: Vec<Leads>,
    /// By circuit, in the order of [`Wire::circuits`], the numbers of its ends from the first function's inner one to the
    /// endpoint's.
    pub chains: Vec<Vec<usize>>,
}

/// Where an end leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Nowhere: the wire is parked.
    Nowhere,
    /// To the end with this number, whatever the flow.
    To(usize),
    /// By the flow's circuit. Of an end that one circuit has, this notes which circuit the flow has.
    ByFlow(Vec<Way>),
}

/// Where one circuit goes on from an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Number of the circuit, in the order of [`Wire::circuits`].
    pub circuit: usize,
    /// Number of the end.
    pub to: usize,
}

impl Wire {
    /// What the wire is made of.
    #[must_use]
    pub fn layout(&self) -> Layout<'_> {
        let client = Facing {
            side: Side::Client,
            end: &self.client,
        };
        let mut layout = Layout {
            ends: vec![client],
            leads: Vec::new(),
            chains: Vec::with_capacity(self.branches.len()),
        };
        for circuit in self.circuits() {
            layout.add(circuit);
        }
        layout.lead(self.branches.len() + self.draining.len());
        layout
    }

    /// Every end that the wire names; circuits may share ends.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.client).chain(self.circuits().flat_map(Circuit::ends))
    }

    /// The circuits of all branches, those that drain, and the backup.
    pub fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        let branches = self.branches.iter().map(|branch| &branch.circuit);
        let draining = self.draining.iter().map(|draining| &draining.circuit);
        branches.chain(draining).chain(&self.backup)
    }

    /// Which function or endpoint has the end of this number in the layout, and its namespace, if it has one of its own;
    /// `None` for the client's end.
    #[must_use]
    pub fn workload_at(&self, number: usize) -> Option<(&str, Option<NetnsId>)> {
        let layout = self.layout();
        let mut circuits = self.circuits().zip(&layout.chains);
        let (circuit, at) = circuits.find_map(|(circuit, chain)| {
            let at = chain.iter().position(|end| *end == number)?;
            Some((circuit, at))
        })?;
        let hop = circuit.hops.get(at / 2);
        let name = hop.map_or(&circuit.endpoint_name, |hop| &hop.endpoint_name);
        let netns = match circuit.ends().nth(at)? {
            End::Veth(end) => Some(end.netns.id),
            End::Interface(_) => None,
        };
        Some((name, netns))
    }

    /// The same wire while it leads nowhere.
    #[must_use]
    pub fn parked(&self) -> Self {
        Self {
            branches: Vec::new(),
            backup: None,
            draining: Vec::new(),
            ..self.clone()
        }
    }
}

impl<'a> Layout<'a> {
    /// Numbers the ends of a circuit.
    fn add(&mut self, circuit: &'a Circuit) {
        let mut chain = Vec::with_capacity(circuit.hops.len() * 2 + 1);
        for hop in &circuit.hops {
            chain.push(self.end(Side::Endpoint, &hop.inside));
            chain.push(self.end(Side::Client, &hop.outside));
        }
        chain.push(self.end(Side::Endpoint, &circuit.endpoint));
        self.chains.push(chain);
    }

    fn end(&mut self, side: Side, end: &'a End) -> usize {
        let new = Facing { side, end };
        if let Some(known) = self.ends.iter().position(|end| end.is_same(&new)) {
            return known;
        }
        self.ends.push(new);
        self.ends.len() - 1
    }

    /// Joins the ends of each segment. The first `in_use` circuits carry flows; what another one has for itself leads on
    /// in it, so that nothing but one end changes when it is switched to.
    fn lead(&mut self, in_use: usize) {
        let mut ways: Vec<Vec<Way>> = vec![Vec::new(); self.ends.len()];
        for (circuit, chain) in self.chains.iter().enumerate() {
            let ready = |ways: &[Way]| circuit >= in_use && !ways.is_empty();
            for (near, far) in segments(chain) {
                for (from, to) in [(near, far), (far, near)] {
                    if let Some(ways) = ways.get_mut(from).filter(|ways| !ready(ways)) {
                        ways.push(Way { circuit, to });
                    }
                }
            }
        }
        if let Some(client) = ways.first_mut() {
            client.retain(|way| way.circuit < in_use);
        }
        let parts: BTreeSet<usize> = {
            let by_end = ways.iter().enumerate();
            by_end
                .filter(|(_, ways)| differ(ways))
                .map(|(end, _)| end)
                .collect()
        };
        let leads = |ways: Vec<Way>| match ways.first() {
            None => Leads::Nowhere,
            // A flow that comes back to where ways part must find its own; so it is noted at the ends before.
            Some(way) if parts.contains(&way.to) || differ(&ways) => Leads::ByFlow(ways),
            Some(way) => Leads::To(way.to),
        };
        self.leads = ways.into_iter().map(leads).collect();
    }
}

/// The pairs of ends that packets pass between, the client's first.
fn segments(chain: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let near = std::iter::once(0).chain(chain.iter().copied().skip(1).step_by(2));
    near.zip(chain.iter().copied().step_by(2))
}

fn differ(ways: &[Way]) -> bool {
    ways.windows(2).any(|pair| pair[0].to != pair[1].to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::InterfaceEnd;

    fn end(name: &str) -> End {
        End::Interface(InterfaceEnd {
            name: IfName::new(name).unwrap(),
        })
    }

    fn circuit(hops: &[&str], endpoint: &str) -> Circuit {
        let hop = |name: &&str| Hop {
            endpoint_name: (*name).to_owned(),
            inside: end(&format!("{name}-in")),
            outside: end(&format!("{name}-out")),
        };
        Circuit {
            hops: hops.iter().map(hop).collect(),
            endpoint_name: endpoint.to_owned(),
            endpoint: end(endpoint),
        }
    }

    fn wire(circuits: Vec<Circuit>, backup: Option<Circuit>) -> Wire {
        Wire {
            id: WireId("w".to_owned()),
            network_service: "gold".to_owned(),
            payload: Payload::Ip,
            mtu: 1500,
            client: end("app"),
            branches: circuits.into_iter().map(Branch::all).collect(),
            backup,
            draining: Vec::new(),
            probe: false,
        }
    }

    /// `from>to` for every end; by flow, `from>[circuit:to,…]`.
    fn legs(wire: &Wire) -> Vec<String> {
        let layout = wire.layout();
        let name = |number: usize| match layout.ends[number].end {
            End::Interface(end) => end.name.to_string(),
            End::Veth(_) => unreachable!("the test has none"),
        };
        let to = |leads: &Leads| match leads {
            Leads::Nowhere => "-".to_owned(),
            Leads::To(number) => name(*number),
            Leads::ByFlow(ways) => {
                let ways: Vec<_> = ways
                    .iter()
                    .map(|way| format!("{}:{}", way.circuit, name(way.to)))
                    .collect();
                format!("[{}]", ways.join(","))
            }
        };
        let leads = layout.leads.iter().enumerate();
        leads
            .map(|(from, leads)| format!("{}>{}", name(from), to(leads)))
            .collect()
    }

    #[test]
    fn every_end_leads_to_the_other_end_of_its_segment() {
        assert_eq!(legs(&wire(vec![], None)), ["app>-"]);
        assert_eq!(legs(&wire(vec![circuit(&[], "gw")], None)), ["app>gw", "gw>app"]);
        assert_eq!(
            legs(&wire(vec![circuit(&["a", "b"], "gw")], None)),
            [
                "app>a-in",
                "a-in>app",
                "a-out>b-in",
                "b-in>a-out",
                "b-out>gw",
                "gw>b-out"
            ]
        );
    }

    #[test]
    fn a_backup_is_ready_but_nothing_leads_to_it() {
        let shared = wire(vec![circuit(&["a"], "gw")], Some(circuit(&["a"], "two")));
        assert_eq!(
            legs(&shared),
            ["app>a-in", "a-in>app", "a-out>gw", "gw>a-out", "two>a-out"]
        );
        assert_eq!(shared.layout().chains, [vec![1, 2, 3], vec![1, 2, 4]]);
    }

    #[test]
    fn ways_part_where_branches_do_and_are_noted_where_they_come_together() {
        // One branch is direct, the other goes through a function; both have one endpoint.
        let shared = wire(vec![circuit(&[], "gw"), circuit(&["a"], "gw")], None);
        assert_eq!(
            legs(&shared),
            [
                "app>[0:gw,1:a-in]",
                "gw>[0:app,1:a-out]",
                "a-in>[1:app]",
                "a-out>[1:gw]"
            ]
        );
        // Behind a common function, flows part there, and not before.
        let behind = wire(vec![circuit(&["a"], "one"), circuit(&["a"], "two")], None);
        assert_eq!(
            legs(&behind),
            [
                "app>a-in",
                "a-in>app",
                "a-out>[0:one,1:two]",
                "one>[0:a-out]",
                "two>[1:a-out]"
            ]
        );
    }

    #[test]
    fn what_drains_is_a_way_and_a_backup_is_none() {
        let mut draining = wire(vec![circuit(&[], "new")], Some(circuit(&[], "spare")));
        draining.draining.push(Draining {
            circuit: circuit(&[], "old"),
            branch: 0,
        });
        assert_eq!(
            legs(&draining),
            ["app>[0:new,1:old]", "new>[0:app]", "old>[1:app]", "spare>[2:app]"]
        );
        let parked = Wire {
            branches: Vec::new(),
            draining: Vec::new(),
            ..draining
        };
        assert_eq!(legs(&parked), ["app>-", "spare>app"]);
    }
}
