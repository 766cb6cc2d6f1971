//! Which endpoints are in a network namespace.

use std::collections::{BTreeMap, BTreeSet};

use tieline_model::{Attachment, EndpointName, NetnsId, NetnsRef, NetworkServiceEndpoint, NodeName};

/// A namespace of a node, by identity or by path.
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

/// Endpoints by namespace. An endpoint that was declared by path has no identity; it is in whatever lies at the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    by_identity: BTreeMap<Place, BTreeSet<EndpointName>>,
    /// All of them by path, so that those with identity are found by one without.
    by_path: BTreeMap<Place, BTreeSet<EndpointName>>,
}

impl Places {
    pub(super) fn put(&mut self, endpoint: &NetworkServiceEndpoint) {
        if let Attachment::Netns(netns) = endpoint.attachment() {
            let (node, name) = (endpoint.node(), endpoint.name());
            let path = Place::Path(node.clone(), netns.path().to_owned());
            let own = self.by_identity.entry(Place::of(node, netns)).or_default();
            own.insert(name.clone());
            self.by_path.entry(path).or_default().insert(name.clone());
        }
    }

    pub(super) fn take(&mut self, endpoint: &NetworkServiceEndpoint) {
        if let Attachment::Netns(netns) = endpoint.attachment() {
            let (node, name) = (endpoint.node(), endpoint.name());
            remove(&mut self.by_identity, &Place::of(node, netns), name);
            let path = Place::Path(node.clone(), netns.path().to_owned());
            remove(&mut self.by_path, &path, name);
        }
    }

    /// The endpoints in a namespace, by [`NetnsRef::is_same`].
    pub(super) fn at(&self, node: &NodeName, netns: &NetnsRef) -> BTreeSet<&EndpointName> {
        let path = Place::Path(node.clone(), netns.path().to_owned());
        if netns.id().is_none() {
            return self.by_path.get(&path).into_iter().flatten().collect();
        }
        let same = self
            .by_identity
            .get(&Place::of(node, netns))
            .into_iter()
            .flatten();
        let declared = self.by_identity.get(&path).into_iter().flatten();
        same.chain(declared).collect()
    }
}

fn remove(index: &mut BTreeMap<Place, BTreeSet<EndpointName>>, place: &Place, name: &EndpointName) {
    if let Some(names) = index.get_mut(place) {
        names.remove(name);
        if names.is_empty() {
            index.remove(place);
        }
    }
}
