//! The API's services. They read messages into validated values, ask the engine, and write the answer; they decide nothing.

mod admin;
mod agent;
mod domain;
mod monitor;
mod registry;
mod routes;
mod session;
mod steering;
mod stream;

use std::sync::Arc;

use tieline_model::Timestamp;
use tonic::{Code, Response, Status};

use crate::domains::Domains;
use crate::engine::EngineHandle;
use crate::failure::Failure;
use crate::metrics::Metrics;

pub(crate) use self::routes::routes;

/// Longest message that is read on the services for everybody, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Longest message of the operators' service, in bytes: a whole file of objects.
pub const MAX_ADMIN_MESSAGE_BYTES: usize = tieline_model::limits::MAX_FILE_BYTES;
/// Longest message of a session and of an operator's list, in bytes: a snapshot of 10,000 wires is below 20 MiB. Agents and
/// operators' tools raise their own limit to this one.
pub const MAX_SESSION_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What the services stand on.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) engine: EngineHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) about: Arc<About>,
    pub(crate) domains: Domains,
}

/// What control says of itself.
#[derive(Debug)]
pub(crate) struct About {
    /// The store for people.
    pub(crate) store: String,
    /// When it started.
    pub(crate) started: Timestamp,
}

impl Api {
    /// Counts a call and turns its outcome into gRPC's.
    fn answer<T>(&self, rpc: &'static str, outcome: Result<T, Failure>) -> Result<Response<T>, Status> {
        match outcome {
            Ok(answer) => {
                self.metrics.rpc(rpc, tieline_proto::code_name(Code::Ok));
                Ok(Response::new(answer))
            }
            Err(failure) => {
                let status = Status::from(failure);
                self.metrics.rpc(rpc, tieline_proto::code_name(status.code()));
                tracing::debug!(
                    rpc,
                    code = tieline_proto::code_name(status.code()),
                    message = status.message(),
                    "refused"
                );
                Err(status)
            }
        }
    }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| tieline_model::Invalid::new(field, "", "required").into())
}
