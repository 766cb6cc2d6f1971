//! The control plane process: gRPC servers, the engine that owns the registry, agent sessions.
//!
//! [`run`] is all of control; [`Control::start`] and [`Control::serve`] are its two halves for a process that wants a
//! [`ControlHandle`] for its metrics and readiness. `engine` is the heart: one task that owns the registry and the
//! store. `grpc` reads messages and asks it. `status` is the only place where a gRPC status is made.

#![forbid(unsafe_code)]

mod config;
mod domains;
mod engine;
mod error;
mod failure;
mod grpc;
mod listen;
mod metrics;
mod outlet;
mod readiness;
mod server;
mod status;

pub use config::{Config, PeerConfig, StoreConfig};
pub use error::ControlError;
pub use grpc::{MAX_ADMIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES, MAX_SESSION_MESSAGE_BYTES};
pub use readiness::Readiness;
pub use server::{Control, ControlHandle, run};
pub use tieline_registry::RegistryConfig;
