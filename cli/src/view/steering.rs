//! Where connections lead, why, and where a change leads them.

use serde::Serialize;
use tieline_proto::tieline::admin::v1::{
    ConnectionLeg, ConnectionMove, Decision, ExplainConnectionResponse, RemovedEndpoint,
};

use super::{
    BranchPlacement,
    text::{or_dash, path},
};
use crate::output::{Row, fields};

/// The way of a part of a connection's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LegView {
    /// The part; none: what no leg before it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) traffic: Vec<String>,
    /// The endpoints that packets pass, the terminating one last.
    pub(crate) path: Vec<String>,
}

impl From<ConnectionLeg> for LegView {
    fn from(leg: ConnectionLeg) -> Self {
        Self {
            traffic: leg.traffic,
            path: leg.path,
        }
    }
}

impl LegView {
    fn text(&self) -> String {
        let way = path(self.path.iter().map(String::as_str));
        if self.traffic.is_empty() {
            way
        } else {
            format!("{}: {way}", self.traffic.join(", "))
        }
    }
}

fn legs(legs: &[LegView]) -> String {
    if legs.is_empty() {
        return "parked".to_owned();
    }
    legs.iter().map(LegView::text).collect::<Vec<_>>().join("; ")
}

/// A live connection that leads elsewhere after a change.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct MoveView {
    pub(crate) connection_id: String,
    pub(crate) network_service: String,
    /// Where it led; none: it was parked.
    pub(crate) from: Vec<LegView>,
    /// Where it leads; none: it is parked.
    pub(crate) to: Vec<LegView>,
    /// The rules that decided.
    pub(crate) because: String,
}

impl From<ConnectionMove> for MoveView {
    fn from(one: ConnectionMove) -> Self {
        Self {
            connection_id: one.connection_id,
            network_service: one.network_service,
            from: one.from.into_iter().map(LegView::from).collect(),
            to: one.to.into_iter().map(LegView::from).collect(),
            because: one.because,
        }
    }
}

impl Row for MoveView {
    const HEADINGS: &'static [&'static str] = &["CONNECTION", "SERVICE", "FROM", "TO", "BECAUSE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.connection_id.clone(),
            self.network_service.clone(),
            legs(&self.from),
            legs(&self.to),
            self.because.clone(),
        ]
    }
}

/// Why a connection leads where it leads.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ExplainView {
    pub(crate) connection_id: String,
    pub(crate) network_service: String,
    pub(crate) state: String,
    /// Why it is DOWN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// Where it leads; none: it is parked.
    pub(crate) branches: Vec<BranchPlacement>,
    /// The endpoints that it is switched to when the first branch fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backup: Vec<String>,
    /// Where it goes back to if its node cannot carry out the last change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<LegView>,
    /// Where flows go on that were there before a change, and new ones do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) draining: Vec<LegView>,
    /// Endpoints that it ended at before, the last ones first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) former: Vec<String>,
    /// The choices that led it there, from the client on.
    pub(crate) decisions: Vec<DecisionView>,
}

/// One choice.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DecisionView {
    /// The function that the path goes on behind; none: the client.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) behind: String,
    pub(crate) steps: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) removed: Vec<RemovedView>,
    /// How many more were taken out.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) further: u32,
    /// None: nobody was left.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) chosen: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) plumbing: String,
}

/// An endpoint that a rule took out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct RemovedView {
    pub(crate) endpoint: String,
    pub(crate) rule: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl From<RemovedEndpoint> for RemovedView {
    fn from(removed: RemovedEndpoint) -> Self {
        Self {
            endpoint: removed.endpoint,
            rule: removed.rule,
        }
    }
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        Self {
            behind: decision.behind,
            steps: decision.steps,
            removed: decision.removed.into_iter().map(RemovedView::from).collect(),
            further: decision.further,
            chosen: decision.chosen,
            plumbing: decision.plumbing,
        }
    }
}

impl From<ExplainConnectionResponse> for ExplainView {
    fn from(answer: ExplainConnectionResponse) -> Self {
        let status = answer.connection.unwrap_or_default();
        let connection = status.connection.unwrap_or_default();
        Self {
            state: super::connection::state_name(connection.state()).to_owned(),
            connection_id: connection.id,
            network_service: connection.network_service,
            reason: status.reason,
            branches: status.branches.into_iter().map(BranchPlacement::from).collect(),
            backup: status.backup,
            before: answer.before.into_iter().map(LegView::from).collect(),
            draining: answer.draining.into_iter().map(LegView::from).collect(),
            former: answer.former,
            decisions: answer.decisions.into_iter().map(DecisionView::from).collect(),
        }
    }
}

impl ExplainView {
    /// Everything, for people.
    pub(crate) fn describe(&self) -> String {
        let branches: Vec<String> = self.branches.iter().map(BranchPlacement::describe).collect();
        let mut pairs = vec![
            ("Connection", self.connection_id.clone()),
            ("NetworkService", self.network_service.clone()),
            ("State", self.state.clone()),
        ];
        if !self.reason.is_empty() {
            pairs.push(("Reason", self.reason.clone()));
        }
        let parked = || "nowhere: it is parked".to_owned();
        pairs.push((
            "Leads to",
            Some(branches.join("\n"))
                .filter(|text| !text.is_empty())
                .unwrap_or_else(parked),
        ));
        pairs.push(("Backup", or_dash(&path(self.backup.iter().map(String::as_str)))));
        if !self.before.is_empty() {
            let text = format!("{} (its node has not confirmed the change)", legs(&self.before));
            pairs.push(("Goes back to", text));
        }
        if !self.draining.is_empty() {
            pairs.push(("Old flows go to", legs(&self.draining)));
        }
        if !self.former.is_empty() {
            pairs.push(("Ended before at", self.former.join(", ")));
        }
        let choices: Vec<String> = self.decisions.iter().map(DecisionView::describe).collect();
        fields(&pairs) + "\n" + &choices.join("\n")
    }
}

impl DecisionView {
    fn describe(&self) -> String {
        let behind = if self.behind.is_empty() {
            "From the client".to_owned()
        } else {
            format!("Behind {}", self.behind)
        };
        let to = match (self.chosen.as_str(), self.plumbing.as_str()) {
            ("", _) => String::new(),
            (chosen, "endpoint") => format!(" to {chosen}, where it ends"),
            (chosen, plumbing) => format!(" to {chosen}, which passes packets on as {plumbing}"),
        };
        let mut text = format!("{behind}{to}\n");
        for step in &self.steps {
            text.push_str(&format!("  {step}\n"));
        }
        for removed in &self.removed {
            text.push_str(&format!("  not {}: {}\n", removed.endpoint, removed.rule));
        }
        if self.further > 0 {
            text.push_str(&format!("  nor {} more\n", self.further));
        }
        text
    }
}
