//! Whose leases this node keeps, and who of them has vanished.
//!
//! Control keeps the leases of a node as long as it hears from it. So one message refreshes all of them, however many there
//! are, and only exceptions are named: clients and endpoints whose namespace or interface is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tieline_proto::tieline::agent::v1 as proto;
use tokio::sync::Notify;

use super::place::Place;
use crate::desired::{IfName, NetnsId, NetnsRef};

/// Everybody whose disappearance is to be told.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    present: Mutex<Present>,
    suspicion: Notify,
}

#[derive(Debug, Default)]
struct Present {
    /// By connection, the client's namespace.
    clients: BTreeMap<String, Place>,
    endpoints: BTreeMap<String, Place>,
}

impl Tenants {
    /// A plan begins. Endpoints that registered meanwhile stay: the plan may be older than they are.
    pub(crate) fn begin(&self, snapshot: &proto::Snapshot) {
        let clients = snapshot.wires.iter().filter_map(client).collect();
        let kept = snapshot.kept_endpoints.iter().filter_map(kept);
        let mut present = self.lock();
        present.clients = clients;
        present.endpoints.extend(kept);
    }

    /// The plan changes.
    pub(crate) fn change(&self, delta: &proto::Delta) {
        let mut present = self.lock();
        for id in &delta.remove {
            present.clients.remove(id);
        }
        present.clients.extend(delta.upsert.iter().filter_map(client));
    }

    /// An endpoint registered; `place` is given if the node keeps its lease.
    pub(crate) fn registered(&self, name: String, place: Option<Place>) {
        let mut present = self.lock();
        match place {
            Some(place) => drop(present.endpoints.insert(name, place)),
            None => drop(present.endpoints.remove(&name)),
        }
    }

    /// An endpoint unregistered.
    pub(crate) fn unregistered(&self, name: &str) {
        self.lock().endpoints.remove(name);
    }

    /// Something of the node went away; whoever waits in [`Self::suspected`] looks.
    pub(crate) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Waits until somebody may have vanished.
    pub(crate) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Who has vanished. Nobody is named twice: what control does not hear of, it says in its next plan. Reads files: call
    /// it where blocking is allowed.
    pub(crate) fn take_vanished(&self) -> proto::KeepAlive {
        // Not under the lock: a file system may be slow, and calls wait for it.
        let (clients, endpoints) = {
            let present = self.lock();
            (present.clients.clone(), present.endpoints.clone())
        };
        let connections_gone = vanished(clients);
        let endpoints_gone = vanished(endpoints);
        let mut present = self.lock();
        for id in &connections_gone {
            present.clients.remove(id);
        }
        for name in &endpoints_gone {
            present.endpoints.remove(name);
        }
        proto::KeepAlive {
            connections_gone,
            endpoints_gone,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that are not there. Many may share a namespace: it is looked at once.
fn vanished(places: BTreeMap<String, Place>) -> Vec<String> {
    let mut there: BTreeSet<NetnsRef> = BTreeSet::new();
    let mut gone: BTreeSet<NetnsRef> = BTreeSet::new();
    let mut is_gone = |place: &Place| match place {
        Place::Netns(netns) if there.contains(netns) => false,
        Place::Netns(netns) if gone.contains(netns) => true,
        Place::Netns(netns) => {
            let is_there = place.is_there();
            let known = if is_there { &mut there } else { &mut gone };
            known.insert(netns.clone());
            !is_there
        }
        Place::Interface(_) => !place.is_there(),
    };
    let gone = places.into_iter().filter(|(_, place)| is_gone(place));
    gone.map(|(name, _)| name).collect()
}

fn client(wire: &proto::Wire) -> Option<(String, Place)> {
    match wire.client.as_ref()?.attachment.as_ref()? {
        proto::wire_end::Attachment::Veth(veth) => {
            Some((wire.connection_id.clone(), netns(veth.netns.as_ref()?)?))
        }
        proto::wire_end::Attachment::Interface(_) => None,
    }
}

fn kept(endpoint: &proto::KeptEndpoint) -> Option<(String, Place)> {
    let place = match endpoint.place.as_ref()? {
        proto::kept_endpoint::Place::Netns(message) => netns(message)?,
        proto::kept_endpoint::Place::Interface(name) => Place::Interface(IfName::new(name).ok()?),
    };
    Some((endpoint.name.clone(), place))
}

/// A namespace without identity was declared by its path; it is not anybody's to lose.
fn netns(message: &proto::NetworkNamespace) -> Option<Place> {
    let id = NetnsId {
        device: message.device,
        inode: message.inode,
    };
    let path = PathBuf::from(&message.path);
    (id.inode != 0).then_some(Place::Netns(NetnsRef { path, id }))
}

/// Where the endpoint of a registration is.
pub(crate) fn place_of(workload: &proto::Workload, interface: &str) -> Option<Place> {
    if interface.is_empty() {
        return netns(workload.netns.as_ref()?);
    }
    IfName::new(interface).ok().map(Place::Interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::wire;

    /// The namespace of this process, by a path that leads there as long as it runs.
    fn here() -> proto::NetworkNamespace {
        let netns = crate::netns::current().unwrap();
        proto::NetworkNamespace {
            path: "/proc/self/ns/net".to_owned(),
            device: netns.id.device,
            inode: netns.id.inode,
        }
    }

    fn wire_at(n: u8, netns: proto::NetworkNamespace) -> proto::Wire {
        let mut wire = wire(n);
        if let Some(proto::wire_end::Attachment::Veth(veth)) =
            wire.client.as_mut().unwrap().attachment.as_mut()
        {
            veth.netns = Some(netns);
        }
        wire
    }

    fn another() -> proto::NetworkNamespace {
        proto::NetworkNamespace { inode: 1, ..here() }
    }

    #[test]
    fn who_is_not_where_it_was_has_vanished_and_is_named_once() {
        let tenants = Tenants::default();
        let kept = |name: &str, place| proto::KeptEndpoint {
            name: name.to_owned(),
            place: Some(place),
        };
        tenants.begin(&proto::Snapshot {
            wires: vec![wire_at(1, here()), wire_at(2, another()), wire_at(3, another())],
            kept_endpoints: vec![
                kept("here", proto::kept_endpoint::Place::Netns(here())),
                kept("moved", proto::kept_endpoint::Place::Netns(another())),
                kept("lo", proto::kept_endpoint::Place::Interface("lo".to_owned())),
                kept(
                    "tap",
                    proto::kept_endpoint::Place::Interface("tl-no-tap".to_owned()),
                ),
            ],
            ..proto::Snapshot::default()
        });
        let told = tenants.take_vanished();
        assert_eq!(told.connections_gone, ["c2", "c3"]);
        assert_eq!(told.endpoints_gone, ["moved", "tap"]);
        assert_eq!(tenants.take_vanished(), proto::KeepAlive::default());
    }

    #[test]
    fn changes_and_registrations_count_at_once() {
        let tenants = Tenants::default();
        tenants.begin(&proto::Snapshot {
            wires: vec![wire_at(1, another())],
            ..proto::Snapshot::default()
        });
        tenants.change(&proto::Delta {
            upsert: vec![wire_at(2, another())],
            remove: vec!["c1".to_owned()],
            ..proto::Delta::default()
        });
        let workload = proto::Workload {
            netns: Some(another()),
            ..proto::Workload::default()
        };
        for name in ["kept", "by-its-client", "gone"] {
            tenants.registered(name.to_owned(), place_of(&workload, ""));
        }
        tenants.registered("by-its-client".to_owned(), None);
        tenants.unregistered("gone");
        // A plan that was made before does not make them forgotten.
        tenants.begin(&proto::Snapshot {
            wires: vec![wire_at(2, another())],
            ..proto::Snapshot::default()
        });
        let told = tenants.take_vanished();
        assert_eq!(
            (told.connections_gone, told.endpoints_gone),
            (vec!["c2".to_owned()], vec!["kept".to_owned()])
        );
    }
}
