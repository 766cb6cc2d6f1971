//! A wire: its client's end, where it leads, and what follows from that for every end of it.

use crate::desired::{End, NetnsId, Payload, Side, WireId};

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
}

/// A circuit and its share of the flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Share among the branches.
    pub weight: u32,
    /// Where the flows go.
    pub circuit: Circuit,
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
        Self { weight: 1, circuit }
    }
}

impl Circuit {
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
    /// By end, the number of the end that it leads to; `None`: nowhere, for the wire is parked.
    pub leads: Vec<Option<usize>>,
    /// By circuit, the numbers of its ends from the first function's inner one to the endpoint's. The backup is last.
    pub chains: Vec<Vec<usize>>,
}

impl Wire {
    /// What the wire is made of. Where several circuits leave an end, the first one counts: this node does not split
    /// flows.
    #[must_use]
    pub fn layout(&self) -> Layout<'_> {
        let client = Facing {
            side: Side::Client,
            end: &self.client,
        };
        let mut layout = Layout {
            ends: vec![client],
            leads: vec![None],
            chains: Vec::with_capacity(self.branches.len()),
        };
        for circuit in self.circuits() {
            layout.add(circuit);
        }
        layout
    }

    /// Every end that the wire names; circuits may share ends.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.client).chain(self.circuits().flat_map(Circuit::ends))
    }

    /// The circuits of all branches, and the backup.
    pub fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        let branches = self.branches.iter().map(|branch| &branch.circuit);
        branches.chain(&self.backup)
    }

    /// The same wire while it leads nowhere.
    #[must_use]
    pub fn parked(&self) -> Self {
        Self {
            branches: Vec::new(),
            backup: None,
            ..self.clone()
        }
    }
}

impl<'a> Layout<'a> {
    fn add(&mut self, circuit: &'a Circuit) {
        let mut chain = Vec::with_capacity(circuit.hops.len() * 2 + 1);
        let mut near = 0;
        for hop in &circuit.hops {
            let inside = self.end(Side::Endpoint, &hop.inside);
            self.join(near, inside);
            near = self.end(Side::Client, &hop.outside);
            chain.extend([inside, near]);
        }
        let last = self.end(Side::Endpoint, &circuit.endpoint);
        self.join(near, last);
        chain.push(last);
        self.chains.push(chain);
    }

    fn end(&mut self, side: Side, end: &'a End) -> usize {
        let new = Facing { side, end };
        if let Some(known) = self.ends.iter().position(|end| end.is_same(&new)) {
            return known;
        }
        self.ends.push(new);
        self.leads.push(None);
        self.ends.len() - 1
    }

    /// A segment between two ends.
    fn join(&mut self, near: usize, far: usize) {
        for (from, to) in [(near, far), (far, near)] {
            if let Some(lead) = self.leads.get_mut(from) {
                lead.get_or_insert(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{IfName, InterfaceEnd};

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
        }
    }

    /// `from>to` for every end.
    fn legs(wire: &Wire) -> Vec<String> {
        let layout = wire.layout();
        let name = |number: usize| match layout.ends[number].end {
            End::Interface(end) => end.name.to_string(),
            End::Veth(_) => unreachable!("the test has none"),
        };
        let leg = |(from, to): (usize, &Option<usize>)| {
            format!("{}>{}", name(from), to.map_or_else(|| "-".to_owned(), name))
        };
        layout.leads.iter().enumerate().map(leg).collect()
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
}
