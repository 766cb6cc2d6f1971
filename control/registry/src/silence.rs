//! Leases that nodes keep: they last as long as their node is heard of, and end with what it says is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_model::{ConnectionId, EndpointName, NetworkServiceEndpoint, NodeName, Timestamp};

use crate::{NodeGeneration, Refusal, Registry};

/// When each of several, nodes or domains, has been silent for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence<K> {
    by_end: BTreeSet<(Timestamp, K)>,
    ends: BTreeMap<K, Timestamp>,
    /// Those of which nobody knows when they were last heard of; their time begins with the first look at the clock.
    unknown: BTreeSet<K>,
}

impl<K> Default for Silence<K> {
    fn default() -> Self {
        Self {
            by_end: BTreeSet::new(),
            ends: BTreeMap::new(),
            unknown: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Silence<K> {
    /// Nothing is known of when these were last heard of.
    pub(crate) fn unknown(all: impl IntoIterator<Item = K>) -> Self {
        Self {
            unknown: all.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Somebody was heard of; if that is not again, it is too long at `end`.
    pub(crate) fn heard(&mut self, who: &K, end: Timestamp) {
        self.unknown.remove(who);
        if let Some(before) = self.ends.insert(who.clone(), end) {
            self.by_end.remove(&(before, who.clone()));
        }
        self.by_end.insert((end, who.clone()));
    }

    /// Those of which nobody knows when they were heard of, once.
    pub(crate) fn take_unknown(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.unknown)
    }

    /// When there is something to do.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        if self.unknown.is_empty() {
            self.by_end.first().map(|(end, _)| *end)
        } else {
            Some(Timestamp::default())
        }
    }

    /// Somebody whose silence has been too long, once.
    pub(crate) fn take_over(&mut self, now: Timestamp) -> Option<K> {
        let (_, who) = self.by_end.first().filter(|(end, _)| *end <= now).cloned()?;
        self.by_end.pop_first();
        self.ends.remove(&who);
        Some(who)
    }
}

impl Registry {
    /// Ends what nodes keep that have been silent for too long.
    pub(crate) fn end_silence(&mut self, now: Timestamp) {
        let end = now.after(self.config.node_lease);
        for node in self.silence.take_unknown() {
            self.silence.heard(&node, end);
        }
        while let Some(node) = self.silence.take_over(now) {
            let connections: Vec<ConnectionId> = self.kept_connections(&node).collect();
            let endpoints = self.endpoints_kept_by(&node).map(|one| one.name().clone());
            let endpoints: Vec<EndpointName> = endpoints.collect();
            connections.iter().for_each(|id| drop(self.remove_connection(id)));
            endpoints.iter().for_each(|name| drop(self.remove_endpoint(name)));
        }
    }

    /// Its agent gave a sign of life: a call of its workloads counts as well.
    pub(crate) fn hear(&mut self, now: Timestamp, node: &NodeName) {
        if self.nodes.contains_key(node) {
            self.silence.heard(node, now.after(self.config.node_lease));
        }
    }

    /// A node is there. What it keeps and says is gone ends; what it says of other leases is of no concern.
    pub(crate) fn keep_alive(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        connections_gone: &[ConnectionId],
        endpoints_gone: &[EndpointName],
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        let node = self
            .nodes
            .get_mut(name)
            .ok_or_else(|| Refusal::UnknownNode { node: name.clone() })?;
        node.last_seen = now;
        self.hear(now, name);
        self.end_doubt(name);
        let mut plans = BTreeSet::new();
        for id in connections_gone {
            let connection = self.tables.connections.get(id);
            if connection.is_some_and(|one| one.client.node == *name && one.expires.is_none()) {
                plans.extend(self.remove_connection(id));
            }
        }
        for endpoint in endpoints_gone {
            let known = self.tables.endpoints().get(endpoint);
            if known.is_some_and(|one| one.node() == name && one.is_kept_by_node()) {
                plans.extend(self.remove_endpoint(endpoint));
            }
        }
        Ok(plans.into_iter().collect())
    }

    fn kept_connections(&self, node: &NodeName) -> impl Iterator<Item = ConnectionId> {
        let here = self.tables.by_node.of(node);
        let kept = here.filter(|id| {
            let connection = self.tables.connections.get(*id);
            connection.is_some_and(|one| one.expires.is_none())
        });
        kept.cloned()
    }

    /// The endpoints whose leases `node` keeps.
    pub fn endpoints_kept_by(&self, node: &NodeName) -> impl Iterator<Item = &Arc<NetworkServiceEndpoint>> {
        let all = self.tables.endpoints().values();
        all.filter(move |one| one.node() == node && one.is_kept_by_node())
    }
}
