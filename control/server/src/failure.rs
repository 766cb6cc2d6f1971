//! Why a call fails, in control's own words. `status` turns it into gRPC's.

use std::time::Duration;

use tieline_model::{Invalid, NodeName, RegistryDomain};
use tieline_registry::Refusal;
use tieline_store::StoreError;

use crate::outlet::End;

/// Why a call fails. Each message is one sentence with the next step; where a field is at fault it is
/// `field "value": rule`.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A value breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The registry refuses. Nothing happened.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The node has the plan but did not say within the deadline that it carried it out.
    #[error(
        "node \"{node}\": its agent did not report the wire within {} ms: the connection stays requested, repeat \
         the Request or Close it", waited.as_millis()
    )]
    NodeSilent {
        /// The node.
        node: NodeName,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The store lost the transaction: nothing of the call happened.
    #[error("control cannot store the change, nothing was changed: {0}")]
    Store(StoreError),
    /// The store has no state that control could work with.
    #[error("control cannot read its state, so it refuses changes while traffic goes on: {0}")]
    NoState(String),
    /// More calls wait for nodes than control admits.
    #[error("{waiting} calls wait for nodes already and control admits no more: try again")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// Control stops.
    #[error("control is stopping: try again when it is back")]
    Stopping,
    /// The engine ended a stream.
    #[error("{}", stream_end(*.0))]
    Ended(End),
    /// A session that begins with something else.
    #[error("message \"{got}\": a session begins with a Hello within {} s: send it first", within.as_secs())]
    NoHello {
        /// What came.
        got: &'static str,
        /// How long control waits for it.
        within: Duration,
    },
    /// One message on the agents' service that is not a session's and too large.
    #[error("request \"{bytes} bytes\": at most {most} bytes are read: send less")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// An endpoint for no particular node, while there is not exactly one.
    #[error(
        "url \"{url}\": which of the {nodes} nodes is meant is not clear: declare the endpoint with its node by `tieline apply`"
    )]
    WhichNode {
        /// The endpoint's url.
        url: String,
        /// How many nodes control knows.
        nodes: usize,
    },
    /// A registry domain that this control was not told of.
    #[error(
        "{field} \"{value}\": registry domain \"{domain}\" is not known here: start control with --domain OWN and --peer {domain}=ADDRESS, and the one there with --peer OWN"
    )]
    UnknownDomain {
        /// The field that names it.
        field: &'static str,
        /// The field's value.
        value: String,
        /// The domain.
        domain: String,
    },
    /// A registry domain whose control does not answer.
    #[error(
        "registry domain \"{domain}\" cannot be reached at {address} ({why}): what is connected stays so, try again when its control is back"
    )]
    DomainAway {
        /// The domain.
        domain: RegistryDomain,
        /// Where it was looked for.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// A registry domain whose control says no.
    #[error("registry domain \"{domain}\" refuses: {message}")]
    DomainRefuses {
        /// The domain.
        domain: RegistryDomain,
        /// Its code.
        code: tonic::Code,
        /// Its sentence.
        message: String,
    },
    /// A registry domain that asks and was not named.
    #[error(
        "domain \"{domain}\": this control answers only registry domains that it knows: start it with --peer {domain}"
    )]
    NotAPeer {
        /// Who asks.
        domain: RegistryDomain,
    },
    /// The engine answered something that does not fit the question.
    #[error("control answered {got} to {asked}: this is a defect of control, report it")]
    Mismatch {
        /// The question.
        asked: &'static str,
        /// The answer.
        got: String,
    },
}

fn stream_end(end: End) -> &'static str {
    match end {
        End::TooSlow => {
            "the reader does not keep up with the changes: open the stream again, it begins with a snapshot"
        }
        End::Replaced => {
            "a newer session of the same node took over: two agents with one node name must not run at once"
        }
        End::ShuttingDown => "control is stopping: open the stream again when it is back",
        End::Lost => "control's store failed and the state was read anew: open the stream again",
    }
}
