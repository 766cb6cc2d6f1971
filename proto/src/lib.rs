//! The gRPC API.
//!
//! [`networkservice`], [`connection`], [`connectioncontext`] and [`registry`] are Network Service Mesh's packages,
//! wire-compatible by package, message, field number and RPC name. [`tieline`] holds what NSM has no word for:
//! the session between control and the agents, and the operators' calls. Fields are only ever added.

mod code;
pub mod dial;
pub mod label;
pub mod lease;
mod packages;
mod violation;

pub use code::code_name;
pub use packages::{connection, connectioncontext, networkservice, registry, tieline};
pub use violation::{Violation, status};

/// The encoded `FileDescriptorSet` of every package, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
