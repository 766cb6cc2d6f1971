//! Whether a rule applies where a path goes on.

use std::{borrow::Cow, fmt, sync::Arc};

use tieline_model::{
    Attachment, Labels, NetworkServiceEndpoint, Requirement, ServiceName, SourceService, Step,
    TrafficSelector, WiringSource,
};

use super::SelectInput;
use crate::{
    Inventory,
    inventory::{Board, WiredRoutes},
};

/// Where a path goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// The function; `None`: the client.
    pub(super) hop: Option<&'a Arc<NetworkServiceEndpoint>>,
    /// The first position of the service's selector that is still ahead.
    pub(super) stage: usize,
}

/// The qualifier of a wiring that does not hold.
pub(super) enum Unmet<'a> {
    Service(&'a SourceService),
    Pod(&'a Requirement),
    Client(&'a Requirement),
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(source) if source.negated => {
                write!(f, "the source is an endpoint of {}", source.service)
            }
            Self::Service(source) => write!(f, "the source is no endpoint of {}", source.service),
            Self::Pod(term) => write!(f, "{term} does not hold for what is proven of the source"),
            Self::Client(term) => write!(f, "{term} does not hold for what the client says of itself"),
        }
    }
}

/// One part of the traffic at a place: a wiring, or what is decided without one.
pub(super) struct Fork<'a> {
    pub(super) wiring: Option<&'a WiredRoutes>,
    /// Empty: what no fork before it takes.
    pub(super) traffic: &'a [TrafficSelector],
    /// What was looked at on the way to it.
    pub(super) steps: Vec<Step>,
}

/// The rules of one selection.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) input: &'a SelectInput<'a>,
}

impl<'a> Rules<'a> {
    /// The parts of the traffic from `source` on, the last one for all the rest.
    pub(super) fn forks(&self, source: Source<'_>) -> Vec<Fork<'a>> {
        let board = self.inventory.board(self.input.service.name());
        let mut steps: Vec<Step> = Vec::new();
        let mut forks = Vec::new();
        for wired in board.map(Board::wirings).unwrap_or_default() {
            let (wiring, name) = (&wired.wiring, wired.wiring.name());
            if let Some(unmet) = self.unmet(wiring.source(), source) {
                steps.push(Step::WiringPassedOver {
                    wiring: name.clone(),
                    because: unmet.to_string(),
                });
                continue;
            }
            let decides = Step::Wiring {
                wiring: name.clone(),
                traffic: wiring.traffic().to_vec(),
            };
            forks.push(Fork {
                wiring: Some(wired),
                traffic: wiring.traffic(),
                steps: steps.iter().cloned().chain([decides]).collect(),
            });
            if wiring.traffic().is_empty() {
                return forks;
            }
        }
        forks.push(Fork {
            wiring: None,
            traffic: &[],
            steps,
        });
        forks
    }

    /// The first qualifier that does not hold for `source`.
    fn unmet<'b>(&self, rule: &'b WiringSource, source: Source<'_>) -> Option<Unmet<'b>> {
        let service = rule.source_service.as_ref();
        let wrong = |one: &&SourceService| self.implements(source, &one.service) == one.negated;
        if let Some(service) = service.filter(wrong) {
            return Some(Unmet::Service(service));
        }
        let attested = source
            .hop
            .map_or(self.input.client.attested, |hop| hop.attested());
        if let Some(term) = rule.pod_selector.unmet(attested) {
            return Some(Unmet::Pod(term));
        }
        rule.client_selector
            .unmet(self.input.client.labels)
            .map(Unmet::Client)
    }

    /// Whether `source` is an endpoint of `service`: it, or another one in its namespace, offers it.
    fn implements(&self, source: Source<'_>, service: &ServiceName) -> bool {
        let offers = |one: &Arc<NetworkServiceEndpoint>| one.services().contains_key(service);
        let client = self.input.client;
        let (node, netns) = match source.hop.map(|hop| (hop, hop.attachment())) {
            None => (client.node, client.netns),
            Some((hop, _)) if offers(hop) => return true,
            Some((hop, Attachment::Netns(netns))) => (hop.node(), netns),
            Some((_, Attachment::Interface(_))) => return false,
        };
        self.inventory.endpoints_at(node, netns).any(offers)
    }

    /// Whether a wiring names `hop` as a source whose packets it leads on: then paths do not end there. One that names
    /// it by nothing but its service and leads to it as well says how the service's functions reach their ends, of
    /// which this is one.
    pub(super) fn is_wired_on(&self, hop: &Arc<NetworkServiceEndpoint>) -> bool {
        let Some(board) = self.inventory.board(self.input.service.name()) else {
            return false;
        };
        let source = Source {
            hop: Some(hop),
            stage: 0,
        };
        board.wirings().iter().any(|wired| {
            let rule = wired.wiring.source();
            let leads_to = || {
                wired
                    .routes
                    .iter()
                    .any(|(_, group)| group.is_some_and(|one| board.group(one).has(hop)))
            };
            rule.is_positive() && self.unmet(rule, source).is_none() && (rule.names_labels() || !leads_to())
        })
    }

    /// The labels that the service's matches look at: what is proven of the source; for the rest what the client says
    /// of itself, or what the function registered.
    pub(super) fn labels(&self, source: Source<'_>) -> Cow<'a, Labels> {
        let client = self.input.client;
        match source.hop {
            Some(hop) => Cow::Owned(hop.labels_for(self.input.service.name())),
            None if client.attested.is_empty() => Cow::Borrowed(client.labels),
            None => Cow::Owned(client.attested.or(client.labels)),
        }
    }

    /// The first position of the service's selector that lies ahead of a source that was not chosen by one: a function
    /// that is proven to stand in the list goes on behind its own position, not before `from`.
    pub(super) fn stage_behind(&self, attested: &Labels, from: usize) -> usize {
        let stages = self.input.service.selector().stages();
        if stages.len() < 2 {
            return 0;
        }
        let own = stages
            .iter()
            .enumerate()
            .skip(from)
            .find(|(_, stage)| attested.contains(stage));
        own.map_or(from, |(i, _)| i + 1)
    }

    /// Where the client stands: ahead of everybody, unless it is an endpoint of the service itself.
    pub(super) fn client(&self) -> Source<'a> {
        let source = Source { hop: None, stage: 0 };
        let stage = if self.implements(source, self.input.service.name()) {
            self.stage_behind(self.input.client.attested, 0)
        } else {
            0
        };
        Source { hop: None, stage }
    }
}
