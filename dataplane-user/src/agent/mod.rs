//! The agent's outer half: the session with control, the local API, metrics and readiness.
//!
//! Tasks and their threads: the session and the local API are tasks of the caller's runtime; everything that
//! touches the kernel happens on one thread of its own ([`worker`]). Nothing in the kernel depends on any of them
//! being alive.

mod attested;
mod batch;
mod config;
mod convert;
mod dial;
mod error;
mod lifecycle;
mod local_api;
mod machine;
mod place;
mod reports;
mod resolvers;
mod session;
mod status;
mod telemetry;
mod tenants;
#[cfg(test)]
mod testing;
mod worker;

pub use self::{
    config::{Config, ControlAddress},
    error::{AgentError, ConfigError, StartError},
    lifecycle::Agent,
    telemetry::{AgentHandle, Readiness},
};

pub use crate::loader::Backend as AttachChoice;

/// Runs an agent on this machine's kernel until `shutdown`. Whoever wants its metrics takes [`Agent::new`] and keeps
/// the handle.
pub async fn run(config: Config, shutdown: tokio_util::sync::CancellationToken) -> Result<(), AgentError> {
    let (agent, _handle) = Agent::new(config)?;
    agent.run(shutdown).await
}
