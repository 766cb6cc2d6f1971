//! What one service's rules select, ready to be looked up.

use std::sync::Arc;

use tieline_model::{
    EndpointName, Labels, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, NodeName, Selector,
    ServiceName,
};

use crate::Class;

/// Endpoints by node and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group(Vec<Arc<NetworkServiceEndpoint>>);

type Key<'a> = (&'a NodeName, &'a EndpointName);

fn key(endpoint: &NetworkServiceEndpoint) -> Key<'_> {
    (endpoint.node(), endpoint.name())
}

impl Group {
    fn find(&self, endpoint: &NetworkServiceEndpoint) -> Result<usize, usize> {
        self.0.binary_search_by(|one| key(one).cmp(&key(endpoint)))
    }

    fn put(&mut self, endpoint: &Arc<NetworkServiceEndpoint>) {
        match self.find(endpoint) {
            Ok(at) => self.0[at] = Arc::clone(endpoint),
            Err(at) => self.0.insert(at, Arc::clone(endpoint)),
        }
    }

    fn take(&mut self, endpoint: &NetworkServiceEndpoint) {
        if let Ok(at) = self.find(endpoint) {
            self.0.remove(at);
        }
    }

    /// Whether `endpoint` is one of them.
    pub(crate) fn has(&self, endpoint: &NetworkServiceEndpoint) -> bool {
        self.find(endpoint).is_ok()
    }

    /// All of them.
    pub(crate) fn as_slice(&self) -> &[Arc<NetworkServiceEndpoint>] {
        &self.0
    }

    /// Those on one node.
    pub(crate) fn on(&self, node: &NodeName) -> &[Arc<NetworkServiceEndpoint>] {
        let from = self.0.partition_point(|one| one.node() < node);
        let rest = self.0.get(from..).unwrap_or_default();
        let count = rest.partition_point(|one| one.node() == node);
        rest.get(..count).unwrap_or_default()
    }
}

/// Destinations with their weights; `None`: the destination depends on the request.
pub(crate) type Routes = Vec<(u64, Option<usize>)>;

/// A wiring with the groups of its destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WiredRoutes {
    pub(crate) wiring: Arc<NetworkServiceWiring>,
    pub(crate) routes: Routes,
}

/// What one service's rules select.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Board {
    all: Group,
    groups: Vec<(Selector, Group)>,
    wirings: Vec<WiredRoutes>,
    /// For each match of the service.
    matches: Vec<Routes>,
    /// For each position of the service's selector; `None`: any endpoint.
    stages: Vec<Option<usize>>,
}

/// Weights as shares: all 0 means equal.
fn shares(weights: impl Iterator<Item = u32> + Clone) -> impl Iterator<Item = u64> {
    let unweighted = weights.clone().all(|weight| weight == 0);
    weights.map(move |weight| if unweighted { 1 } else { u64::from(weight) })
}

impl Board {
    pub(crate) fn build<'a>(
        name: &ServiceName,
        service: Option<&Arc<NetworkService>>,
        wirings: impl Iterator<Item = &'a Arc<NetworkServiceWiring>>,
        all: Group,
    ) -> Self {
        let mut board = Self {
            all,
            ..Self::default()
        };
        let mut wirings: Vec<&Arc<NetworkServiceWiring>> = wirings.collect();
        wirings.sort_by(|a, b| a.rank().cmp(&b.rank()));
        for wiring in wirings {
            let weights = shares(wiring.route().iter().map(|route| route.weight));
            let routes = weights.zip(wiring.route());
            let routes = routes.map(|(weight, route)| (weight, Some(board.group_of(&route.pod_selector))));
            let routes = routes.collect();
            let wiring = Arc::clone(wiring);
            board.wirings.push(WiredRoutes { wiring, routes });
        }
        for rule in service.iter().flat_map(|service| service.matches()) {
            let weights = shares(rule.routes.iter().map(|route| route.weight));
            let routes = weights.zip(&rule.routes).map(|(weight, route)| {
                let fixed = route.destination_selector.fixed();
                (weight, fixed.map(|selector| board.group_of(&selector)))
            });
            let routes = routes.collect();
            board.matches.push(routes);
        }
        for stage in service.iter().flat_map(|service| service.selector().stages()) {
            let group = (!stage.is_empty()).then(|| board.group_of(&Selector::from(stage)));
            board.stages.push(group);
        }
        let all = std::mem::take(&mut board.all);
        all.0
            .iter()
            .for_each(|endpoint| board.put_endpoint(name, endpoint));
        board
    }

    /// The group of a selector, still empty if it is new.
    fn group_of(&mut self, selector: &Selector) -> usize {
        let known = self.groups.iter().position(|(one, _)| one == selector);
        known.unwrap_or_else(|| {
            self.groups.push((selector.clone(), Group::default()));
            self.groups.len() - 1
        })
    }

    pub(crate) fn into_all(self) -> Group {
        self.all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.0.is_empty() && self.wirings.is_empty()
    }

    pub(crate) fn put_endpoint(&mut self, service: &ServiceName, endpoint: &Arc<NetworkServiceEndpoint>) {
        let labels: Labels = endpoint.labels_for(service);
        self.all.put(endpoint);
        for (selector, group) in &mut self.groups {
            if selector.matches(&labels) {
                group.put(endpoint);
            }
        }
    }

    pub(crate) fn take_endpoint(&mut self, endpoint: &NetworkServiceEndpoint) {
        self.all.take(endpoint);
        for (_, group) in &mut self.groups {
            group.take(endpoint);
        }
    }

    /// Every endpoint of the service.
    pub(crate) fn all(&self) -> &Group {
        &self.all
    }

    /// One of the groups.
    pub(crate) fn group(&self, index: usize) -> &Group {
        self.groups.get(index).map_or(&self.all, |(_, group)| group)
    }

    /// The wirings about the service, the first to be tried first.
    pub(crate) fn wirings(&self) -> &[WiredRoutes] {
        &self.wirings
    }

    /// The destinations of the service's match.
    pub(crate) fn match_routes(&self, index: usize) -> &[(u64, Option<usize>)] {
        self.matches.get(index).map_or(&[], Vec::as_slice)
    }

    /// The destinations of decisions of a class, with their weights; `None`: they depend on the request.
    pub(crate) fn routes_of(&self, class: &Class) -> Option<Vec<(u64, &Group)>> {
        let routes = match class {
            Class::Wiring(name) => &self.wirings.iter().find(|one| one.wiring.name() == name)?.routes,
            Class::Match(index) => self.matches.get(*index)?,
            Class::Stage(index) => return Some(vec![(1, self.stage(*index))]),
        };
        if routes.is_empty() {
            return Some(vec![(1, &self.all)]);
        }
        routes
            .iter()
            .map(|(weight, group)| Some((*weight, self.group((*group)?))))
            .collect()
    }

    /// Who stands at a position of the service's selector.
    pub(crate) fn stage(&self, index: usize) -> &Group {
        match self.stages.get(index) {
            Some(Some(group)) => self.group(*group),
            _ => &self.all,
        }
    }
}
