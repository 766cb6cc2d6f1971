//! Trying the candidates of one choice.

use std::sync::Arc;

use tieline_model::{
    Attachment, Chosen, Decision, EndpointName, NetworkServiceEndpoint, Payload, Plumbing, Removal, Step,
    limits::MAX_HOPS,
};

use super::{
    BranchPath, Choice,
    candidates::Because,
    order::Endpoint,
    rules::Source,
    walk::{Candidates, Part, Passed, Walk},
};

/// The most candidates that one selection tries.
const MAX_TRIES: u32 = 4096;
/// The most characters of a reason that is told within another.
const MAX_REASON: usize = 240;

impl<'a> Walk<'a> {
    /// The first candidate that leads on to an end, with its branches; `None`: none does, and `decision` says why.
    pub(super) fn try_all(
        &mut self,
        source: Source<'a>,
        candidates: &Candidates<'a>,
        part: &Part,
        decision: &mut Decision,
    ) -> Option<Vec<BranchPath>> {
        let mut tried: Vec<Endpoint<'a>> = Vec::new();
        let preferred = self.preferred(candidates, part);
        for (endpoint, because) in preferred.iter().copied() {
            if !self.is_well(endpoint) {
                continue;
            }
            tried.push(endpoint);
            let found = self.attempt(source, candidates, part, decision, (endpoint, because));
            if found.is_some() {
                return found;
            }
        }
        for health in self.healths.iter().copied() {
            for (endpoint, because) in self.in_order(source, candidates, &preferred, health) {
                if tried.iter().any(|other| Arc::ptr_eq(other, endpoint)) {
                    continue;
                }
                if self.tries == MAX_TRIES {
                    decision.steps.push(Step::GaveUp { tries: MAX_TRIES });
                    self.depends_on_path = true;
                    return None;
                }
                let found = self.attempt(source, candidates, part, decision, (endpoint, because));
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn attempt(
        &mut self,
        source: Source<'a>,
        candidates: &Candidates<'a>,
        part: &Part,
        decision: &mut Decision,
        (endpoint, because): (Endpoint<'a>, Because),
    ) -> Option<Vec<BranchPath>> {
        self.tries += 1;
        let plumbing = match self.usable(endpoint, candidates) {
            Ok(plumbing) => plumbing,
            Err(by) => {
                decision.remove(endpoint.name(), by);
                return None;
            }
        };
        let chosen = Chosen {
            endpoint: endpoint.name().clone(),
            plumbing,
        };
        if !plumbing.is_passthrough() {
            self.note(decision.clone(), candidates, chosen.clone(), because);
            let passed = self.path.iter().map(|passed| Chosen {
                endpoint: passed.endpoint.name().clone(),
                plumbing: passed.plumbing,
            });
            return Some(vec![BranchPath {
                wiring: part.wiring.clone(),
                traffic: part.traffic.clone(),
                weight: 1,
                path: passed.chain([chosen]).collect(),
            }]);
        }
        let next = Source {
            hop: Some(endpoint),
            stage: candidates
                .next_stage
                .unwrap_or_else(|| self.rules.stage_behind(endpoint.attested(), source.stage)),
        };
        let ahead = part.ahead(chosen.endpoint.clone(), next.stage);
        if let Some(because) = self.dead_ends.get(&ahead) {
            let because = because.clone();
            decision.remove(endpoint.name(), Removal::DeadEnd { because });
            return None;
        }
        let before = (self.report.decisions.len(), self.choices.len());
        self.note(decision.clone(), candidates, chosen, because);
        let outer = std::mem::take(&mut self.depends_on_path);
        self.path.push(Passed { endpoint, plumbing });
        let found = self.go_on(next, part);
        self.path.pop();
        let found = found.map_err(|failed| {
            self.report.decisions.truncate(before.0);
            self.choices.truncate(before.1);
            let because = shortened(&failed.reasons(self.input.service.name()));
            if !self.depends_on_path {
                self.dead_ends.insert(ahead, because.clone());
            }
            decision.remove(endpoint.name(), Removal::DeadEnd { because });
        });
        self.depends_on_path |= outer;
        found.ok()
    }

    /// How an endpoint would stand in the path, or why it cannot.
    fn usable(&mut self, endpoint: Endpoint<'a>, candidates: &Candidates<'a>) -> Result<Plumbing, Removal> {
        let (client, service) = (self.input.client, self.input.service);
        match endpoint.attachment() {
            Attachment::Netns(netns) if netns.is_same(client.netns) && endpoint.node() == client.node => {
                return Err(Removal::ClientItself { netns: netns.clone() });
            }
            Attachment::Interface(_) if self.is_reserve => return Err(Removal::InterfaceTerminates),
            Attachment::Interface(_) => {
                let holder = self.usage.holder(endpoint).filter(|by| *by != self.input.id);
                if let Some(by) = holder {
                    return Err(Removal::InterfaceTaken { by: by.clone() });
                }
            }
            Attachment::Netns(_) => {}
        }
        if let Some(passed) = self.path.iter().find(|passed| is_same(passed.endpoint, endpoint)) {
            self.depends_on_path = true;
            return Err(Removal::OnPath {
                endpoint: passed.endpoint.name().clone(),
            });
        }
        let plumbing = self.plumbing(endpoint, candidates)?;
        if let Some(other) = self.in_the_way(endpoint, plumbing) {
            self.depends_on_path = true;
            return Err(Removal::NoRoomBeside { endpoint: other });
        }
        if plumbing == Plumbing::Endpoint {
            let on_path = |name| self.path.iter().any(|passed| passed.endpoint.name() == name);
            return match self
                .input
                .wanted
                .filter(|name| *name != endpoint.name() && !on_path(*name))
            {
                None => Ok(plumbing),
                Some(wanted) => {
                    self.depends_on_path = true;
                    let wanted = wanted.clone();
                    Err(Removal::NotTheOneNamed { wanted })
                }
            };
        }
        if matches!(endpoint.attachment(), Attachment::Interface(_)) {
            return Err(Removal::InterfaceTerminates);
        }
        if plumbing == Plumbing::Gateway && service.payload() == Payload::Ethernet {
            return Err(Removal::CannotCarryFrames);
        }
        if self.path.len() == MAX_HOPS {
            self.depends_on_path = true;
            return Err(Removal::TooLong { most: MAX_HOPS });
        }
        Ok(plumbing)
    }

    /// Who stands in the endpoint's namespace on another branch of the connection in a way that leaves no room for it: two
    /// ends of one connection that face the client, or that face the endpoint, cannot be in one namespace, for they have
    /// the same routes. Branches that end in one namespace share one end, and so do those that one function passes on.
    fn in_the_way(&self, endpoint: Endpoint<'a>, plumbing: Plumbing) -> Option<EndpointName> {
        let chosen = self
            .report
            .decisions
            .iter()
            .filter_map(|decision| decision.chosen.as_ref());
        let chosen = chosen.filter_map(|one| {
            let other = self.rules.inventory.endpoints().get(&one.endpoint)?;
            Some((other, one.plumbing))
        });
        let held = self.held.iter().map(|one| (one.endpoint, one.plumbing));
        let shares_an_end = |other: Endpoint<'_>, role: Plumbing| match (plumbing, role) {
            (Plumbing::Endpoint, Plumbing::Endpoint) => true,
            _ => plumbing == role && other.name() == endpoint.name(),
        };
        let mut others = held.chain(chosen);
        let other = others.find(|(other, role)| is_same(other, endpoint) && !shares_an_end(other, *role));
        other.map(|(other, _)| other.name().clone())
    }

    pub(super) fn plumbing(
        &self,
        endpoint: Endpoint<'a>,
        candidates: &Candidates<'a>,
    ) -> Result<Plumbing, Removal> {
        match endpoint.plumbing() {
            Some(Plumbing::Endpoint) if candidates.must_pass => Err(Removal::Terminates),
            Some(plumbing) => Ok(plumbing),
            None if candidates.must_pass || self.rules.is_wired_on(endpoint) => Ok(Plumbing::Gateway),
            None => Ok(Plumbing::Endpoint),
        }
    }

    /// Puts a choice into the report.
    fn note(
        &mut self,
        mut decision: Decision,
        candidates: &Candidates<'a>,
        chosen: Chosen,
        because: Because,
    ) {
        decision.steps.push(match because {
            Because::Told => Step::Balanced,
            Because::Kept => Step::Kept,
            Because::Turn => Step::Policy {
                policy: self.input.service.policy(),
                endpoints: candidates.live(),
                turn: self.input.turn,
            },
        });
        self.list_others(candidates, &mut decision);
        self.choices.push(Choice {
            class: candidates.class.clone(),
            endpoint: chosen.endpoint.clone(),
            kept: because == Because::Kept,
        });
        decision.chosen = Some(chosen);
        self.report.decisions.push(decision);
    }
}

/// Whether both are the same endpoint, or in the same namespace.
fn is_same(one: &NetworkServiceEndpoint, other: &NetworkServiceEndpoint) -> bool {
    match (one.attachment(), other.attachment()) {
        (Attachment::Netns(a), Attachment::Netns(b)) => one.node() == other.node() && a.is_same(b),
        _ => one.name() == other.name(),
    }
}

pub(super) fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON) {
        Some((at, _)) => format!("{}…", reason.get(..at).unwrap_or(reason)),
        None => reason.to_owned(),
    }
}
