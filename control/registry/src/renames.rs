//! Names that control chose for interfaces and that something else has in their namespaces: others are chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_model::{Attachment, Circuit, Connection, ConnectionState, IfName, NetnsRef, NodeName, Side};

use crate::{
    NodeFailure, Registry, WireFailureKind,
    names::{Held, InterfaceNames},
};

impl Registry {
    /// Gives the ends of a connection that could not be made, for something has their name, other names. False if the
    /// failure is about nothing that control named; a name that a client asked for is one.
    pub(crate) fn rename(&mut self, connection: &Arc<Connection>, failure: &NodeFailure) -> bool {
        let taken = (failure.kind == WireFailureKind::NameTaken)
            .then(|| IfName::parse("name", &failure.value).ok())
            .flatten();
        let Some(taken) = taken else { return false };
        let before = connection.before.iter().flat_map(|before| before.circuits());
        let mut renaming = Renaming {
            stand: before.flat_map(Held::of_circuit).collect(),
            held: Held::of(connection),
            names: &mut self.tables.names,
            taken,
            given: BTreeMap::new(),
        };
        let mut changed = Connection::clone(connection);
        // A wire that stood has its client's end.
        if connection.state == ConnectionState::Pending && !self.asked.contains(&connection.id) {
            let client = &mut changed.client;
            renaming.end(&client.node, &client.netns, Side::Client, &mut client.interface);
        }
        let branches = changed.branches.iter_mut().map(|branch| &mut branch.circuit);
        for circuit in branches.chain(&mut changed.backup) {
            renaming.circuit(circuit);
        }
        if renaming.given.is_empty() {
            return false;
        }
        self.put_moved(connection, changed);
        true
    }
}

struct Renaming<'a> {
    names: &'a mut InterfaceNames,
    taken: IfName,
    /// What the connection has.
    held: BTreeSet<Held>,
    /// What of it is made: something else cannot have its name.
    stand: BTreeSet<Held>,
    /// The new names, for circuits share ends.
    given: BTreeMap<Held, IfName>,
}

impl Renaming<'_> {
    fn circuit(&mut self, circuit: &mut Circuit) {
        for hop in &mut circuit.hops {
            let inside = &mut hop.inside.interface;
            self.end(&hop.node, &hop.netns, Side::Endpoint, inside);
            let outside = &mut hop.outside.interface;
            self.end(&hop.node, &hop.netns, Side::Client, outside);
        }
        let server = &mut circuit.server;
        if let Attachment::Netns(netns) = &server.attachment {
            self.end(&server.node, netns, Side::Endpoint, &mut server.interface);
        }
    }

    /// Gives one end another name, if it has the one that is taken.
    fn end(&mut self, node: &NodeName, netns: &NetnsRef, side: Side, interface: &mut IfName) {
        let held = Held::made(node, netns, interface);
        if *interface != self.taken || self.stand.contains(&held) {
            return;
        }
        if let Some(given) = self.given.get(&held) {
            given.clone_into(interface);
            return;
        }
        if !self.names.avoid(node, netns, &self.taken) {
            return;
        }
        // A name that cannot be built is the end of all numbers.
        if let Ok(free) = self.names.first_free(node, netns, side, &self.held) {
            self.held.insert(Held::made(node, netns, &free));
            self.given.insert(held, free.clone());
            *interface = free;
        }
    }
}
