//! Interface names in use, per network namespace, and existing interfaces that end a wire.

use std::collections::BTreeMap;

use tieline_model::{Attachment, Connection, ConnectionId, IfName, Invalid, NetnsId, NetnsRef, NodeName};
use tieline_planner::Side;

use crate::runs::Runs;

/// A namespace of a node, by identity or, where no agent told one, by path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Id(NodeName, NetnsId),
    Path(NodeName, String),
}

impl Place {
    fn of(node: &NodeName, netns: &NetnsRef) -> Self {
        match netns.id() {
            Some(id) => Self::Id(node.clone(), id),
            None => Self::Path(node.clone(), netns.path().to_owned()),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    taken: BTreeMap<IfName, ConnectionId>,
    /// Numbers in use of `nsm-N` and of `nse-N`.
    numbers: [Runs; 2],
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

    /// The first free `nsm-N` or `nse-N`, from 1.
    pub(crate) fn first_free(
        &self,
        node: &NodeName,
        netns: &NetnsRef,
        side: Side,
    ) -> Result<IfName, Invalid> {
        let prefix = PREFIXES[index(side)];
        let taken = self
            .places
            .get(&Place::of(node, netns))
            .map(|names| &names.numbers[index(side)]);
        let number = taken
            .map_or(Some(1), |taken| taken.first_free(1, u128::MAX, &[]))
            .unwrap_or(u128::MAX);
        IfName::parse("mechanism.parameters[name]", &format!("{prefix}{number}"))
    }

    /// Which connection an existing interface ends.
    pub(crate) fn end_of(&self, node: &NodeName, name: &IfName) -> Option<&ConnectionId> {
        self.existing.get(&(node.clone(), name.clone()))
    }

    /// Takes both ends' names, or says which is taken by whom and takes none.
    pub(crate) fn take(&mut self, connection: &Connection) -> Result<(), (IfName, ConnectionId)> {
        let (client, server) = (&connection.client, &connection.server);
        self.take_one(&client.node, &client.netns, &client.interface, &connection.id)?;
        let second = match &server.attachment {
            Attachment::Netns(netns) => self.take_one(&server.node, netns, &server.interface, &connection.id),
            Attachment::Interface(name) => {
                let key = (server.node.clone(), name.clone());
                match self.existing.get(&key) {
                    Some(by) => Err((name.clone(), by.clone())),
                    None => {
                        self.existing.insert(key, connection.id.clone());
                        Ok(())
                    }
                }
            }
        };
        if second.is_err() {
            self.release_one(&client.node, &client.netns, &client.interface);
        }
        second
    }

    fn take_one(
        &mut self,
        node: &NodeName,
        netns: &NetnsRef,
        name: &IfName,
        id: &ConnectionId,
    ) -> Result<(), (IfName, ConnectionId)> {
        let names = self.places.entry(Place::of(node, netns)).or_default();
        if let Some(by) = names.taken.get(name) {
            return Err((name.clone(), by.clone()));
        }
        names.taken.insert(name.clone(), id.clone());
        if let Some((i, number)) = numbered(name) {
            names.numbers[i].insert(number);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, connection: &Connection) {
        let (client, server) = (&connection.client, &connection.server);
        self.release_one(&client.node, &client.netns, &client.interface);
        match &server.attachment {
            Attachment::Netns(netns) => self.release_one(&server.node, netns, &server.interface),
            Attachment::Interface(name) => {
                self.existing.remove(&(server.node.clone(), name.clone()));
            }
        }
    }

    fn release_one(&mut self, node: &NodeName, netns: &NetnsRef, name: &IfName) {
        let place = Place::of(node, netns);
        let Some(names) = self.places.get_mut(&place) else {
            return;
        };
        names.taken.remove(name);
        if let Some((i, number)) = numbered(name) {
            names.numbers[i].remove(number);
        }
        if names.taken.is_empty() {
            self.places.remove(&place);
        }
    }
}
