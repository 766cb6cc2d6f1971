//! Among whom a choice is made, and who is tried before whom.

use std::sync::Arc;

use tieline_model::{Decision, EndpointName, Labels, Match, NetworkServiceEndpoint, Plumbing, Removal};

use super::{
    BranchPath,
    order::{Endpoint, Share, order},
    rules::Source,
    walk::{Candidates, Part, Walk},
};
use crate::inventory::Board;

/// Why a candidate is the next to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    Told,
    Kept,
    Turn,
}

/// Who is tried before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    Dead,
    /// Drained, and where the connection is: it stays if there is no other way.
    Leaving,
    /// Drained.
    Drained,
}

impl<'a> Walk<'a> {
    /// The endpoints of destinations that are the same for every request, within reach, by node and name.
    pub(super) fn shares(&self, board: &'a Board, routes: &[(u64, Option<usize>)]) -> Vec<Share<'a>> {
        let share = |(weight, group): &(u64, Option<usize>)| Share {
            weight: *weight,
            endpoints: group.map_or_else(Vec::new, |group| {
                board.group(group).on(self.input.client.node).iter().collect()
            }),
        };
        routes.iter().map(share).collect()
    }

    /// The endpoints of a match's destinations, within reach, by node and name.
    pub(super) fn matched(&self, index: usize, rule: &Match, labels: &Labels) -> Vec<Share<'a>> {
        let Some(board) = self.board else {
            return Vec::new();
        };
        let here = board.all().on(self.input.client.node);
        if rule.routes.is_empty() {
            return vec![Share {
                weight: 1,
                endpoints: here.iter().collect(),
            }];
        }
        let routes = board.match_routes(index);
        let mut shares = self.shares(board, routes);
        for ((share, (_, group)), route) in shares.iter_mut().zip(routes).zip(&rule.routes) {
            let selector = route.destination_selector.render(labels);
            if let (None, Ok(selector)) = (group, selector) {
                let service = self.input.service.name();
                let selected = here
                    .iter()
                    .filter(|one| selector.matches(&one.labels_for(service)));
                share.endpoints = selected.collect();
            }
        }
        shares
    }

    /// Who is tried before anybody's turn among those as well: whom the shares tell, and where the connection is, in the
    /// same part before others.
    pub(super) fn preferred(&self, candidates: &Candidates<'a>, part: &Part) -> Vec<(Endpoint<'a>, Because)> {
        let mut preferred = Vec::new();
        if let Some(told) = self.input.told.get(&candidates.class) {
            preferred.extend(self.candidate(candidates, told).map(|one| (one, Because::Told)));
        }
        let depth = self.path.len();
        let mut current: Vec<&BranchPath> = self.input.current.iter().collect();
        current.sort_by_key(|branch| (branch.wiring != part.wiring, branch.traffic != part.traffic));
        for branch in current {
            let at_depth = branch.path.get(depth).into_iter();
            for chosen in at_depth.chain(&branch.path) {
                let Some(endpoint) = self.candidate(candidates, &chosen.endpoint) else {
                    continue;
                };
                let plumbing = self.plumbing(endpoint, candidates);
                let same_role = |now: Plumbing| now.is_passthrough() == chosen.plumbing.is_passthrough();
                if plumbing.is_ok_and(same_role)
                    && !preferred.iter().any(|(other, _)| Arc::ptr_eq(other, endpoint))
                {
                    preferred.push((endpoint, Because::Kept));
                }
            }
        }
        preferred.retain(|(one, _)| !self.input.avoid.contains(one.name()));
        preferred
    }

    pub(super) fn is_well(&self, endpoint: &NetworkServiceEndpoint) -> bool {
        self.health(endpoint) == Health::Well
    }

    /// The candidate of a name, unless its weight is 0.
    fn candidate(&self, candidates: &Candidates<'a>, name: &EndpointName) -> Option<Endpoint<'a>> {
        let endpoint = self.rules.inventory.endpoints().get(name)?;
        let live = candidates.shares.iter().filter(|share| share.weight > 0);
        live.into_iter().find_map(|share| share.find(endpoint))
    }

    fn health(&self, endpoint: &NetworkServiceEndpoint) -> Health {
        if !self.rules.inventory.is_impaired(endpoint) {
            Health::Well
        } else if !endpoint.is_draining() {
            Health::Dead
        } else if self.is_current(endpoint) {
            Health::Leaving
        } else {
            Health::Drained
        }
    }

    fn is_current(&self, endpoint: &NetworkServiceEndpoint) -> bool {
        let mut names = self.input.current.iter().flat_map(BranchPath::names);
        names.any(|name| name == endpoint.name())
    }

    /// The candidates of one state of health, those that are `preferred` first and the others in the order of the policy;
    /// the one that is named alone, if it is there.
    pub(super) fn in_order(
        &self,
        source: Source<'a>,
        candidates: &Candidates<'a>,
        preferred: &[(Endpoint<'a>, Because)],
        health: Health,
    ) -> Vec<(Endpoint<'a>, Because)> {
        let named = self
            .input
            .wanted
            .and_then(|name| self.candidate(candidates, name));
        if let Some(named) = named {
            let one = (self.health(named) == health).then_some((named, Because::Turn));
            return one.into_iter().collect();
        }
        let near = source.hop.map_or(self.input.client.node, |hop| hop.node());
        let (policy, turn) = (self.input.service.policy(), self.input.turn);
        let taken = |one: &NetworkServiceEndpoint| self.input.avoid.contains(one.name());
        if health == Health::Well && !self.rules.inventory.has_impaired() && self.input.avoid.is_empty() {
            let order = order(&candidates.shares, policy, near, self.usage, turn);
            return order.into_iter().map(|one| (one, Because::Turn)).collect();
        }
        let of = |share: &Share<'a>| Share {
            weight: share.weight,
            endpoints: share
                .endpoints
                .iter()
                .copied()
                .filter(|one| self.health(one) == health && !taken(one))
                .collect(),
        };
        let shares: Vec<Share<'a>> = candidates.shares.iter().map(of).collect();
        let mut order = order(&shares, policy, near, self.usage, turn);
        if health != Health::Well {
            order.sort_by_key(|one| !self.is_current(one));
        }
        let first = preferred
            .iter()
            .copied()
            .filter(|(one, _)| self.health(one) == health);
        order.retain(|one| !preferred.iter().any(|(other, _)| Arc::ptr_eq(other, one)));
        first
            .chain(order.into_iter().map(|one| (one, Because::Turn)))
            .collect()
    }

    /// Lists who is within reach and no candidate.
    pub(super) fn list_others(&self, candidates: &Candidates<'a>, decision: &mut Decision) {
        let here = self.board.map(|board| board.all().on(self.input.client.node));
        let here = here.unwrap_or_default();
        let named = self
            .input
            .wanted
            .filter(|name| self.candidate(candidates, name).is_some());
        // Shares are in the order of `here`: one pass over all of them finds who is in which.
        let mut ahead: Vec<(u64, &[Endpoint<'a>])> = candidates
            .shares
            .iter()
            .map(|share| (share.weight, share.endpoints.as_slice()))
            .collect();
        for endpoint in here {
            let mut weight = None;
            for (own, rest) in &mut ahead {
                if let Some((_, others)) = rest.split_first().filter(|(one, _)| Arc::ptr_eq(one, endpoint)) {
                    (weight, *rest) = (weight.max(Some(*own)), others);
                }
            }
            let by = match (weight, named) {
                (None, _) => candidates.class.excludes(self.input.service),
                (Some(0), _) => candidates.class.gives_nothing(),
                (_, Some(wanted)) if wanted != endpoint.name() => Some(Removal::NotTheOneNamed {
                    wanted: wanted.clone(),
                }),
                _ if self.health(endpoint) == Health::Drained => Some(Removal::Draining),
                _ => None,
            };
            if let Some(by) = by {
                decision.remove(endpoint.name(), by);
            }
        }
    }

    /// Lists who is out of reach.
    pub(super) fn list_elsewhere(&self, decision: &mut Decision) {
        let all = self.board.map(|board| board.all().as_slice()).unwrap_or_default();
        for endpoint in all.iter().filter(|one| one.node() != self.input.client.node) {
            let node = endpoint.node().clone();
            decision.remove(endpoint.name(), Removal::OtherNode { node });
        }
    }
}
