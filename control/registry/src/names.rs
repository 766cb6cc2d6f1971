//! Interface names in use, per network namespace, and existing interfaces that end a wire.

use std::collections::{BTreeMap, BTreeSet};

use tieline_model::{
    Attachment, Circuit, Connection, ConnectionId, EndpointSide, HopSide, IfName, Invalid, NetnsId, NetnsRef,
    NodeName, Side,
};

use crate::runs::Runs;

/// A namespace of a node, by identity or, where no agent told one, by path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Id(NodeName, NetnsId),
    Path(NodeName, String),
}

impl Place {
    /// The namespace by identity and by path.
    pub(crate) fn all_of(node: &NodeName, netns: &NetnsRef) -> BTreeSet<Self> {
        let path = Self::Path(node.clone(), netns.path().to_owned());
        BTreeSet::from([Self::of(node, netns), path])
    }

    pub(crate) fn of(node: &NodeName, netns: &NetnsRef) -> Self {
        match netns.id() {
            Some(id) => Self::Id(node.clone(), id),
            None => Self::Path(node.clone(), netns.path().to_owned()),
        }
    }
}

/// An interface that a connection has. Circuits of one connection may share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// One that the agent makes, in a namespace.
    Made(Place, IfName),
    /// One that exists on a node.
    Existing(NodeName, IfName),
}

impl Held {
    pub(crate) fn made(node: &NodeName, netns: &NetnsRef, name: &IfName) -> Self {
        Self::Made(Place::of(node, netns), name.clone())
    }

    fn at_hop(hop: &HopSide) -> [Self; 2] {
        [&hop.inside, &hop.outside].map(|end| Self::made(&hop.node, &hop.netns, &end.interface))
    }

    fn at_server(server: &EndpointSide) -> Self {
        match &server.attachment {
            Attachment::Netns(netns) => Self::made(&server.node, netns, &server.interface),
            Attachment::Interface(name) => Self::Existing(server.node.clone(), name.clone()),
        }
    }

    /// The interfaces of a circuit, but for the client's.
    pub(crate) fn of_circuit(circuit: &Circuit) -> impl Iterator<Item = Self> {
        let hops = circuit.hops.iter().flat_map(Self::at_hop);
        hops.chain(std::iter::once(Self::at_server(&circuit.server)))
    }

    pub(crate) fn of(connection: &Connection) -> BTreeSet<Self> {
        let client = &connection.client;
        let mut held: BTreeSet<Self> = connection.circuits().flat_map(Self::of_circuit).collect();
        held.insert(Self::made(&client.node, &client.netns, &client.interface));
        held
    }

    fn name(&self) -> &IfName {
        match self {
            Self::Made(_, name) | Self::Existing(_, name) => name,
        }
    }
}

/// Most names of one namespace that are passed over because something else has them.
const MAX_FOREIGN: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    taken: BTreeMap<IfName, ConnectionId>,
    /// Numbers in use of `nsm-N` and of `nse-N`.
    numbers: [Runs; 2],
    /// Names of that form that something else had, as an agent told. Known for as long as a connection has a name here,
    /// and found out again after a restart.
    foreign: BTreeSet<IfName>,
}

/// Every interface name that a connection has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InterfaceNames {
    places: BTreeMap<Place, Names>,
    existing: BTreeMap<(NodeName, IfName), ConnectionId>,
}

const PREFIXES: [&str; 2] = ["nsm-", "nse-"];

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Endpoint => 1,
    }
}

/// The `N` of `nsm-N` or `nse-N`, as it would be written.
fn numbered(name: &IfName) -> Option<(usize, u128)> {
    PREFIXES.iter().enumerate().find_map(|(i, prefix)| {
        let digits = name.as_str().strip_prefix(prefix)?;
        let number: u128 = digits.parse().ok()?;
        (number.to_string() == digits).then_some((i, number))
    })
}

impl InterfaceNames {
    /// Who has `name` in a namespace.
    pub(crate) fn holder(&self, node: &NodeName, netns: &NetnsRef, name: &IfName) -> Option<&ConnectionId> {
        self.places.get(&Place::of(node, netns))?.taken.get(name)
    }

    /// The first `nsm-N` or `nse-N`, from 1, that neither a connection nor the draft of one has.
    pub(crate) fn first_free(
        &self,
        node: &NodeName,
        netns: &NetnsRef,
        side: Side,
        drafted: &BTreeSet<Held>,
    ) -> Result<IfName, Invalid> {
        let (place, kind) = (Place::of(node, netns), index(side));
        let here = drafted.iter().filter_map(|held| match held {
            Held::Made(at, name) if *at == place => numbered(name),
            _ => None,
        });
        let skip: Vec<(u128, u128)> = here
            .filter(|(of, _)| *of == kind)
            .map(|(_, number)| (number, number))
            .collect();
        let nothing = Runs::default();
        let taken = self
            .places
            .get(&place)
            .map_or(&nothing, |names| &names.numbers[kind]);
        let number = taken.first_free(1, u128::MAX, &skip).unwrap_or(u128::MAX);
        IfName::parse(
            "mechanism.parameters[name]",
            &format!("{}{number}", PREFIXES[kind]),
        )
    }

    /// Notes that something else has a name that a connection was given; false if so many are noted that choosing another
    /// will not help.
    pub(crate) fn avoid(&mut self, node: &NodeName, netns: &NetnsRef, name: &IfName) -> bool {
        let Some(names) = self.places.get_mut(&Place::of(node, netns)) else {
            return false;
        };
        if names.foreign.len() >= MAX_FOREIGN {
            return false;
        }
        names.foreign.insert(name.clone())
    }

    /// Which connection an existing interface ends.
    pub(crate) fn end_of(&self, node: &NodeName, name: &IfName) -> Option<&ConnectionId> {
        self.existing.get(&(node.clone(), name.clone()))
    }

    /// Takes the names of every end, or says which is taken by whom and takes none.
    pub(crate) fn take(&mut self, connection: &Connection) -> Result<(), (IfName, ConnectionId)> {
        self.take_all(&Held::of(connection), &connection.id)
    }

    pub(crate) fn release(&mut self, connection: &Connection) {
        Held::of(connection)
            .iter()
            .for_each(|held| self.release_one(held));
    }

    /// Takes what `new` has and `old` did not, and releases what is the other way round; or says what is taken by whom
    /// and does nothing.
    pub(crate) fn exchange(
        &mut self,
        old: &Connection,
        new: &Connection,
    ) -> Result<(), (IfName, ConnectionId)> {
        let (had, has) = (Held::of(old), Held::of(new));
        self.take_all(has.difference(&had), &new.id)?;
        had.difference(&has).for_each(|held| self.release_one(held));
        Ok(())
    }

    fn take_all<'a>(
        &mut self,
        held: impl IntoIterator<Item = &'a Held> + Clone,
        id: &ConnectionId,
    ) -> Result<(), (IfName, ConnectionId)> {
        for one in held.clone() {
            if let Some(by) = self.holder_of(one) {
                return Err((one.name().clone(), by.clone()));
            }
        }
        held.into_iter().for_each(|one| self.take_one(one, id));
        Ok(())
    }

    fn holder_of(&self, held: &Held) -> Option<&ConnectionId> {
        match held {
            Held::Made(place, name) => self.places.get(place)?.taken.get(name),
            Held::Existing(node, name) => self.end_of(node, name),
        }
    }

    fn take_one(&mut self, held: &Held, id: &ConnectionId) {
        match held {
            Held::Existing(node, name) => {
                self.existing.insert((node.clone(), name.clone()), id.clone());
            }
            Held::Made(place, name) => {
                let names = self.places.entry(place.clone()).or_default();
                names.taken.insert(name.clone(), id.clone());
                if let Some((i, number)) = numbered(name) {
                    names.numbers[i].insert(number);
                }
            }
        }
    }

    fn release_one(&mut self, held: &Held) {
        match held {
            Held::Existing(node, name) => {
                self.existing.remove(&(node.clone(), name.clone()));
            }
            Held::Made(place, name) => {
                let Some(names) = self.places.get_mut(place) else {
                    return;
                };
                names.taken.remove(name);
                let foreign = names.foreign.contains(name);
                if let Some((i, number)) = numbered(name).filter(|_| !foreign) {
                    names.numbers[i].remove(number);
                }
                if names.taken.is_empty() {
                    self.places.remove(place);
                }
            }
        }
    }
}
