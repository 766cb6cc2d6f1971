//! How a connection's path was chosen: what was looked at, who was taken out and by which rule.
//!
//! A report is kept with its connection, so it is bounded: per choice it lists so many endpoints and counts the others.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ConnectionId, EndpointName, NetnsRef, NodeName, Plumbing, Policy, ServiceName, TrafficSelector,
    WiringName,
};

/// The most endpoints that one choice lists as taken out.
pub const MAX_LISTED: usize = 16;

/// The choices of one selection, from the client on; those of a branch follow the one that it leaves from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The choices.
    pub decisions: Vec<Decision>,
}

/// One choice: where a path goes on from one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The function that the path goes on behind; `None`: the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<EndpointName>,
    /// The rules that were looked at, in order.
    pub steps: Vec<Step>,
    /// The endpoints that a rule took out, the first [`MAX_LISTED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removed>,
    /// How many more were taken out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub further: usize,
    /// The choice; `None`: nobody is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The endpoint that was chosen, and how it stands in the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Whether the path ends there or goes on behind it, and how.
    pub plumbing: Plumbing,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "step")]
pub enum Step {
    /// A wiring that does not apply here.
    WiringPassedOver {
        /// The wiring.
        wiring: WiringName,
        /// The qualifier that does not hold.
        because: String,
    },
    /// A wiring decides, for all traffic or for a part of it.
    Wiring {
        /// The wiring.
        wiring: WiringName,
        /// The part; empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        traffic: Vec<TrafficSelector>,
    },
    /// A match whose source selector does not hold here.
    MatchPassedOver {
        /// Its index in the service's `matches`.
        index: usize,
        /// Its source selector.
        source: String,
    },
    /// A match that applies and leaves nobody; the next one is tried if it says `fallthrough`.
    MatchExhausted {
        /// Its index in the service's `matches`.
        index: usize,
        /// Whether the next one is tried.
        fallthrough: bool,
    },
    /// No match applies.
    NoMatchApplied,
    /// The match that decides.
    Matched {
        /// Its index in the service's `matches`.
        index: usize,
    },
    /// The service's selector decides.
    Selector {
        /// It.
        selector: String,
    },
    /// A position in the service's ordered selector decides.
    Stage {
        /// The position, from 0.
        index: usize,
        /// How many there are.
        of: usize,
        /// What it selects.
        selector: String,
    },
    /// Behind the last position of the service's ordered selector.
    BehindLastStage,
    /// Any endpoint will do.
    Any,
    /// The connection stays where it is: that is still allowed.
    Kept,
    /// The connection is moved so that each endpoint has its share.
    Balanced,
    /// The search was given up: too many candidates lead nowhere.
    GaveUp {
        /// How many were tried.
        tries: u32,
    },
    /// The connection's node led it over its backup, because an endpoint on its way died.
    Switched,
    /// The connection's node could not lead it elsewhere, and it is back where it was.
    WentBack {
        /// What the node said.
        because: String,
    },
    /// The policy took one of several.
    Policy {
        /// It.
        policy: Policy,
        /// How many endpoints there were.
        endpoints: usize,
        /// The turn: how many choices for the service went before.
        turn: u64,
    },
}

/// An endpoint that a rule took out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// The rule.
    pub by: Removal,
}

/// A rule that takes an endpoint out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "rule")]
pub enum Removal {
    /// The client asks for another one by name.
    NotTheOneNamed {
        /// The one asked for.
        wanted: EndpointName,
    },
    /// It is on another node.
    OtherNode {
        /// That node.
        node: NodeName,
    },
    /// It is the client itself.
    ClientItself {
        /// The namespace of both.
        netns: NetnsRef,
    },
    /// It is on the path already, or shares the namespace of one that is: a loop.
    OnPath {
        /// Who is on the path.
        endpoint: EndpointName,
    },
    /// The connection has an end in its namespace already, which leaves no room for another one.
    NoRoomBeside {
        /// The endpoint that has it.
        endpoint: EndpointName,
    },
    /// It is an interface that ends another wire.
    InterfaceTaken {
        /// The connection that has it.
        by: ConnectionId,
    },
    /// An operator drains it.
    Draining,
    /// The wiring's destinations do not select it.
    NotWired {
        /// The wiring.
        wiring: WiringName,
    },
    /// Only destinations of weight 0 of the wiring select it.
    WiringWeightZero {
        /// The wiring.
        wiring: WiringName,
    },
    /// Its labels satisfy no destination of the match.
    NoDestination {
        /// The match's index.
        index: usize,
    },
    /// Only destinations of weight 0 are left for it.
    WeightZero {
        /// The match's index.
        index: usize,
    },
    /// Its labels do not satisfy the service's selector.
    NotSelected {
        /// The selector, or the part of an ordered one that decides here.
        selector: String,
    },
    /// Packets must go on behind it, and it is plumbed as an endpoint.
    Terminates,
    /// It is an existing interface: what goes in there ends there.
    InterfaceTerminates,
    /// It routes, and the service carries frames.
    CannotCarryFrames,
    /// The path goes on behind it and leads nowhere.
    DeadEnd {
        /// Why.
        because: String,
    },
    /// The path would have too many hops.
    TooLong {
        /// The most.
        most: usize,
    },
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheOneNamed { wanted } => write!(f, "the request names endpoint {wanted}"),
            Self::OtherNode { node } => {
                write!(f, "on node {node}: wires between nodes are not supported yet")
            }
            Self::ClientItself { netns } => {
                write!(f, "in the client's own namespace {netns}: a wire to itself is a loop")
            }
            Self::OnPath { endpoint } => write!(f, "the path leads through {endpoint} already: a loop"),
            Self::NoRoomBeside { endpoint } => write!(
                f,
                "the connection leads to {endpoint} in the same namespace: a second end of it there would have the same routes"
            ),
            Self::InterfaceTaken { by } => {
                write!(f, "its interface ends connection {by}: an interface ends one wire")
            }
            Self::Draining => f.write_str("it is drained: `tieline drain endpoint NAME --off` takes it back"),
            Self::NotWired { wiring } => write!(f, "wiring {wiring}: no destination selects its labels"),
            Self::WiringWeightZero { wiring } => write!(f, "wiring {wiring}: its destinations have weight 0"),
            Self::NoDestination { index } => {
                write!(f, "matches[{index}]: its labels satisfy no destination_selector")
            }
            Self::WeightZero { index } => write!(f, "matches[{index}]: its destinations have weight 0"),
            Self::NotSelected { selector } => {
                write!(f, "its labels do not satisfy the service's selector {selector}")
            }
            Self::Terminates => f.write_str(
                "it is plumbed as endpoint, and the path has to go on: register it with plumbing gateway or transparent",
            ),
            Self::InterfaceTerminates => f.write_str(
                "it is an existing interface and the path has to go on behind it: only a namespace has two sides",
            ),
            Self::CannotCarryFrames => f.write_str(
                "it is plumbed as gateway and the service's payload is ETHERNET: only a transparent function passes frames on",
            ),
            Self::DeadEnd { because } => write!(f, "the path ends behind it: {because}"),
            Self::TooLong { most } => write!(f, "the path would have more than {most} hops"),
        }
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.by)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WiringPassedOver { wiring, because } => {
                write!(f, "wiring {wiring} does not apply: {because}")
            }
            Self::Wiring { wiring, traffic } if traffic.is_empty() => write!(f, "wiring {wiring} decides"),
            Self::Wiring { wiring, traffic } => {
                let traffic: Vec<String> = traffic.iter().map(ToString::to_string).collect();
                write!(f, "wiring {wiring} decides for {}", traffic.join(", "))
            }
            Self::MatchPassedOver { index, source } => {
                write!(f, "matches[{index}]: the request does not carry {source}")
            }
            Self::MatchExhausted { index, fallthrough } => {
                let then = if *fallthrough {
                    "it falls through"
                } else {
                    "it does not say fallthrough"
                };
                write!(f, "matches[{index}]: no endpoint left, and {then}")
            }
            Self::NoMatchApplied => f.write_str("no match applies to the request"),
            Self::Matched { index } => write!(f, "matches[{index}] decides"),
            Self::Selector { selector } => write!(f, "the service's selector {selector} decides"),
            Self::Stage { index, of, selector } => {
                write!(
                    f,
                    "position {} of {of} of the service's selector decides: {selector}",
                    index + 1
                )
            }
            Self::BehindLastStage => f.write_str("behind the last position of the service's selector"),
            Self::Any => f.write_str("any endpoint of the service will do"),
            Self::Kept => f.write_str("the connection stays where it is: that is still allowed"),
            Self::GaveUp { tries } => write!(f, "given up after {tries} candidates that lead nowhere"),
            Self::Switched => f.write_str("an endpoint on its way died, and its node led it over its backup"),
            Self::WentBack { because } => write!(
                f,
                "its node could not lead it elsewhere, so it is back: {because}"
            ),
            Self::Balanced => f.write_str("the connection is where it gives each endpoint its share"),
            Self::Policy {
                policy,
                endpoints,
                turn,
            } => write!(f, "{policy} over {endpoints}, turn {turn}"),
        }
    }
}

impl Step {
    /// Whether it only says how the choice was made, and not why nobody is left.
    fn is_plain(&self) -> bool {
        matches!(
            self,
            Self::Any | Self::Kept | Self::Balanced | Self::Policy { .. } | Self::Matched { .. }
        )
    }
}

impl Decision {
    /// Notes an endpoint that a rule took out.
    pub fn remove(&mut self, endpoint: &EndpointName, by: Removal) {
        if self.removed.len() < MAX_LISTED {
            let endpoint = endpoint.clone();
            self.removed.push(Removed { endpoint, by });
        } else {
            self.further += 1;
        }
    }

    /// Why nobody is left, as one sentence.
    #[must_use]
    pub fn reasons(&self, service: &ServiceName) -> String {
        let refusing = self.steps.iter().filter(|step| !step.is_plain());
        let mut parts: Vec<String> = refusing.map(ToString::to_string).collect();
        parts.extend(self.removed.iter().map(ToString::to_string));
        if self.further > 0 {
            parts.push(format!("and {} more", self.further));
        }
        if self.removed.is_empty() && !self.steps.contains(&Step::BehindLastStage) {
            parts.push(format!(
                "no other endpoint is registered for {service}: register one"
            ));
        }
        parts.join("; ")
    }
}

impl Report {
    /// Whether nothing was looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.decisions.is_empty()
    }

    /// The last choice that found nobody.
    #[must_use]
    pub fn failure(&self) -> Option<&Decision> {
        self.decisions.iter().rev().find(|one| one.chosen.is_none())
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.plumbing {
            Plumbing::Endpoint => self.endpoint.fmt(f),
            passing => write!(f, "{} as {passing}", self.endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_lists_so_many_endpoints_and_counts_the_others() {
        let mut decision = Decision::default();
        for i in 0..20 {
            decision.remove(&format!("e{i}").parse().unwrap(), Removal::Draining);
        }
        assert_eq!((decision.removed.len(), decision.further), (MAX_LISTED, 4));
        let text = decision.reasons(&"gold".parse().unwrap());
        assert!(text.ends_with("and 4 more"), "{text}");
    }

    #[test]
    fn a_report_is_the_same_after_it_was_written_down() {
        let report = Report {
            decisions: vec![Decision {
                behind: Some("fw".parse().unwrap()),
                steps: vec![
                    Step::NoMatchApplied,
                    Step::Wiring {
                        wiring: "w".parse().unwrap(),
                        traffic: vec![TrafficSelector::parse("t", "tcp", "80", "").unwrap()],
                    },
                    Step::MatchExhausted {
                        index: 2,
                        fallthrough: true,
                    },
                ],
                removed: vec![Removed {
                    endpoint: "gw".parse().unwrap(),
                    by: Removal::TooLong { most: 16 },
                }],
                further: 3,
                chosen: Some(Chosen {
                    endpoint: "x".parse().unwrap(),
                    plumbing: Plumbing::Gateway,
                }),
            }],
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report, "{text}");
    }
}
