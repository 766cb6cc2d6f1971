//! The agent's outer half: the session with control, the local API, metrics and readiness.
//!
//! Tasks and their threads: the session and the local API are tasks of the caller's runtime; everything that
//! touches the kernel happens on one thread of its own ([`worker`]). Nothing in the kernel depends on any of them
//! being alive.

mod batch;
mod config;
mod convert;
mod dial;
mod error;
mod lifecycle;
mod local_api;
mod session;
mod status;
mod telemetry;
#[cfg(test)]
mod testing;
mod worker;

pub use self::{
    config::{AttachChoice, Config, ControlAddress},
    error::{AgentError, ConfigError, StartError},
    lifecycle::Agent,
    telemetry::{AgentHandle, Readiness},
};
