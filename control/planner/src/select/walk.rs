//! Going from the client to the endpoint, function by function.

use std::collections::BTreeMap;

use tieline_model::{Chosen, Decision, EndpointName, Plumbing, Report, Step, TrafficSelector, WiringName};

use super::{
    BranchPath, Choice, Class, SelectInput, Usage,
    attempt::shortened,
    candidates::Health,
    order::{Endpoint, Share},
    rules::{Fork, Rules, Source},
};
use crate::{Inventory, inventory::Board};

/// One selection on its way.
pub(super) struct Walk<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) board: Option<&'a Board>,
    pub(super) usage: &'a dyn Usage,
    pub(super) input: &'a SelectInput<'a>,
    pub(super) path: Vec<Passed<'a>>,
    /// Where the connection has ends that this way is held in reserve for.
    pub(super) held: Vec<Passed<'a>>,
    pub(super) report: Report,
    pub(super) choices: Vec<Choice>,
    /// How many candidates were tried.
    pub(super) tries: u32,
    /// Who leads nowhere, whatever the path before.
    pub(super) dead_ends: BTreeMap<Ahead<EndpointName>, String>,
    /// Which choices find nobody, whatever the path before.
    dead_choices: BTreeMap<Ahead<Class>, Decision>,
    /// Whether the way is only held in reserve: an interface that ends one wire is too good for that.
    pub(super) is_reserve: bool,
    /// Who is tried at all, and before whom.
    pub(super) healths: &'static [Health],
    /// Whether a failure since this was cleared depends on the path before.
    pub(super) depends_on_path: bool,
}

/// An endpoint on the path.
pub(super) struct Passed<'a> {
    pub(super) endpoint: Endpoint<'a>,
    pub(super) plumbing: Plumbing,
}

/// The part of the traffic that is on its way.
#[derive(Clone, Default)]
pub(super) struct Part {
    pub(super) wiring: Option<WiringName>,
    pub(super) traffic: Vec<TrafficSelector>,
    /// What branches before it have taken: nothing is looked for that no packet could take.
    taken: Vec<TrafficSelector>,
}

impl Part {
    /// What of this part `fork` is about and not `taken`; `None`: nothing.
    fn within(&self, fork: &Fork<'_>, taken: &[TrafficSelector]) -> Option<Self> {
        let (mut traffic, wiring) = match (fork.wiring, fork.traffic) {
            (Some(wired), [_, ..]) => (self.and(fork.traffic), Some(wired.wiring.name().clone())),
            _ => (self.traffic.clone(), self.wiring.clone()),
        };
        let is_rest = self.traffic.is_empty() && fork.traffic.is_empty();
        traffic.retain(|one| !taken.iter().any(|other| other.covers(one)));
        let taken = taken.to_vec();
        (is_rest || !traffic.is_empty()).then_some(Self {
            wiring,
            traffic,
            taken,
        })
    }

    /// What of this part is of `others`.
    fn and(&self, others: &[TrafficSelector]) -> Vec<TrafficSelector> {
        let mut traffic: Vec<TrafficSelector> = Vec::new();
        if self.traffic.is_empty() {
            traffic.extend(others);
        } else {
            let pairs = self
                .traffic
                .iter()
                .flat_map(|own| others.iter().map(|one| own.and(one)));
            for both in pairs.flatten() {
                if !traffic.iter().any(|one| one.covers(&both)) {
                    traffic.push(both);
                }
            }
        }
        traffic
    }

    /// What decides how it goes on.
    pub(super) fn ahead<T>(&self, from: T, stage: usize) -> Ahead<T> {
        Ahead {
            from,
            stage,
            traffic: self.traffic.clone(),
            taken: self.taken.clone(),
        }
    }
}

/// What decides how a path goes on from somewhere, beside the path before: the first position of the service's selector
/// that is ahead, and the part of the traffic.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ahead<T> {
    from: T,
    stage: usize,
    traffic: Vec<TrafficSelector>,
    taken: Vec<TrafficSelector>,
}

/// Among whom one choice is made.
pub(super) struct Candidates<'a> {
    pub(super) class: Class,
    pub(super) shares: Vec<Share<'a>>,
    /// Whether the path has to go on behind whoever is chosen, for the selector has positions that follow.
    pub(super) must_pass: bool,
    /// The position of the service's selector that lies ahead behind whoever is chosen, if the selector decides.
    pub(super) next_stage: Option<usize>,
}

impl Candidates<'_> {
    /// How many have a weight.
    pub(super) fn live(&self) -> usize {
        let live = self.shares.iter().filter(|share| share.weight > 0);
        live.map(|share| share.endpoints.len()).sum()
    }
}

/// No way leads on; why not.
type DeadEnd = Box<Decision>;

impl<'a> Walk<'a> {
    pub(super) fn new(inventory: &'a Inventory, usage: &'a dyn Usage, input: &'a SelectInput<'a>) -> Self {
        Self {
            rules: Rules { inventory, input },
            board: inventory.board(input.service.name()),
            usage,
            input,
            path: Vec::new(),
            held: Vec::new(),
            report: Report::default(),
            choices: Vec::new(),
            tries: 0,
            dead_ends: BTreeMap::new(),
            dead_choices: BTreeMap::new(),
            is_reserve: false,
            healths: &[Health::Well, Health::Dead, Health::Leaving],
            depends_on_path: false,
        }
    }

    /// The branches, what was looked at, and the choices made.
    pub(super) fn run(mut self) -> (Option<Vec<BranchPath>>, Report, Vec<Choice>) {
        let branches = self.go_on(self.rules.client(), &Part::default());
        let branches = branches
            .map_err(|failed| self.report.decisions.push(*failed))
            .ok();
        (branches, self.report, self.choices)
    }

    /// A way of what no branch takes, alone, that is held in reserve for `selection`.
    pub(super) fn in_reserve(
        mut self,
        selection: &[BranchPath],
        healths: &'static [Health],
    ) -> Option<BranchPath> {
        (self.is_reserve, self.healths) = (true, healths);
        let inventory = self.rules.inventory;
        let held = |chosen: &Chosen| {
            Some(Passed {
                endpoint: inventory.endpoints().get(&chosen.endpoint)?,
                plumbing: chosen.plumbing,
            })
        };
        self.held = selection
            .iter()
            .flat_map(|branch| &branch.path)
            .filter_map(held)
            .collect();
        let client = self.rules.client();
        let rest = self.rules.forks(client).pop()?;
        self.choose(client, rest, &Part::default()).ok()?.pop()
    }

    /// Why nothing can be reached behind `endpoint`; `None`: it ends paths, or they go on behind it.
    pub(super) fn dead_end(mut self, endpoint: Endpoint<'a>) -> Option<String> {
        let plumbing = match endpoint.plumbing() {
            Some(plumbing) => plumbing,
            None if self.rules.is_wired_on(endpoint) => Plumbing::Gateway,
            None => Plumbing::Endpoint,
        };
        if !plumbing.is_passthrough() {
            return None;
        }
        self.path.push(Passed { endpoint, plumbing });
        let source = Source {
            hop: Some(endpoint),
            stage: self.rules.stage_behind(endpoint.attested(), 0),
        };
        let failed = self.go_on(source, &Part::default()).err()?;
        Some(shortened(&failed.reasons(self.input.service.name())))
    }

    /// Every branch from `source` on. A part that leads nowhere may have found no room beside those before it: it is given
    /// the first choice then.
    pub(super) fn go_on(&mut self, source: Source<'a>, part: &Part) -> Result<Vec<BranchPath>, DeadEnd> {
        let before = (self.report.decisions.len(), self.choices.len());
        self.go_on_from(source, part, 0).or_else(|(failed, dead_end)| {
            if failed == 0 {
                return Err(dead_end);
            }
            self.report.decisions.truncate(before.0);
            self.choices.truncate(before.1);
            self.go_on_from(source, part, failed)
                .map_err(|(_, dead_end)| dead_end)
        })
    }

    /// The same, with the first choice for the part of a number; or the number of the part that leads nowhere.
    fn go_on_from(
        &mut self,
        source: Source<'a>,
        part: &Part,
        first: usize,
    ) -> Result<Vec<BranchPath>, (usize, DeadEnd)> {
        let mut taken = part.taken.clone();
        let mut parts = Vec::new();
        for fork in self.rules.forks(source) {
            if let Some(within) = part.within(&fork, &taken) {
                taken.extend(&within.traffic);
                parts.push((parts.len(), fork, within));
            }
        }
        parts.sort_by_key(|(number, ..)| *number != first);
        let mut found = Vec::with_capacity(parts.len());
        for (number, fork, within) in parts {
            let branches = self.choose(source, fork, &within);
            found.push((number, branches.map_err(|dead_end| (number, dead_end))?));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().flat_map(|(_, branches)| branches).collect())
    }

    /// The ways of one part of the traffic from `source` on: by its wiring, or the matches, or the selector.
    fn choose(
        &mut self,
        source: Source<'a>,
        fork: Fork<'a>,
        part: &Part,
    ) -> Result<Vec<BranchPath>, DeadEnd> {
        let mut decision = Box::new(Decision {
            behind: source.hop.map(|hop| hop.name().clone()),
            steps: fork.steps,
            ..Decision::default()
        });
        if let (Some(wired), Some(board)) = (fork.wiring, self.board) {
            let candidates = Candidates {
                class: Class::Wiring(wired.wiring.name().clone()),
                shares: self.shares(board, &wired.routes),
                must_pass: false,
                next_stage: None,
            };
            return self.settle(source, &candidates, part, decision);
        }
        if !self.input.service.matches().is_empty() {
            return self.choose_by_matches(source, part, decision);
        }
        let stages = self.input.service.selector().stages();
        let Some(stage) = stages.get(source.stage) else {
            decision.steps.push(Step::BehindLastStage);
            return Err(decision);
        };
        decision.steps.push(match (stage.is_empty(), stages.len()) {
            (true, 1) => Step::Any,
            (_, 1) => Step::Selector {
                selector: stage.to_string(),
            },
            (_, of) => Step::Stage {
                index: source.stage,
                of,
                selector: stage.to_string(),
            },
        });
        let group = self
            .board
            .map(|board| board.stage(source.stage).on(self.input.client.node));
        let next = if stages.len() > 1 { source.stage + 1 } else { 0 };
        let candidates = Candidates {
            class: Class::Stage(source.stage),
            shares: vec![Share {
                weight: 1,
                endpoints: group.into_iter().flatten().collect(),
            }],
            must_pass: next > 0 && next < stages.len(),
            next_stage: Some(next),
        };
        self.settle(source, &candidates, part, decision)
    }

    fn choose_by_matches(
        &mut self,
        source: Source<'a>,
        part: &Part,
        mut decision: DeadEnd,
    ) -> Result<Vec<BranchPath>, DeadEnd> {
        let labels = self.rules.labels(source);
        let for_templates = labels.or(self.input.client.labels);
        let mut applied = false;
        for (index, rule) in self.input.service.matches().iter().enumerate() {
            let selector = rule.source_selector.render(&for_templates);
            if !selector.is_ok_and(|selector| selector.matches(&labels)) {
                decision.steps.push(Step::MatchPassedOver {
                    index,
                    source: rule.source_selector.to_string(),
                });
                continue;
            }
            applied = true;
            let candidates = Candidates {
                class: Class::Match(index),
                shares: self.matched(index, rule, &for_templates),
                must_pass: false,
                next_stage: None,
            };
            let before = decision.steps.len();
            decision.steps.push(Step::Matched { index });
            decision = match self.settle(source, &candidates, part, decision) {
                Ok(branches) => return Ok(branches),
                Err(decision) => decision,
            };
            decision.steps.truncate(before);
            let fallthrough = rule.fallthrough;
            decision.steps.push(Step::MatchExhausted { index, fallthrough });
            if !fallthrough {
                return Err(decision);
            }
        }
        if !applied {
            decision.steps.push(Step::NoMatchApplied);
        }
        Err(decision)
    }

    fn settle(
        &mut self,
        source: Source<'a>,
        candidates: &Candidates<'a>,
        part: &Part,
        mut decision: DeadEnd,
    ) -> Result<Vec<BranchPath>, DeadEnd> {
        let key = part.ahead(candidates.class.clone(), source.stage);
        if let Some(before) = self.dead_choices.get(&key) {
            decision.removed.clone_from(&before.removed);
            decision.further = before.further;
            return Err(decision);
        }
        let outer = std::mem::take(&mut self.depends_on_path);
        let found = self.try_all(source, candidates, part, &mut decision);
        let same_for_all = !self.depends_on_path && !matches!(candidates.class, Class::Match(_));
        self.depends_on_path |= outer;
        found.ok_or_else(|| {
            self.list_others(candidates, &mut decision);
            self.list_elsewhere(&mut decision);
            if same_for_all {
                self.dead_choices.insert(key, Decision::clone(&decision));
            }
            decision
        })
    }
}
