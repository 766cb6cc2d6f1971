//! The gRPC API.
//!
//! [`networkservice`], [`connection`], [`connectioncontext`] and [`registry`] are Network Service Mesh's packages,
//! wire-compatible by package, message, field number and RPC name. [`tieline`] holds what NSM has no word for:
//! the session between control and the agents, and the operators' calls. Fields are only ever added.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from the .proto files, which carry the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));

/// The encoded `FileDescriptorSet` of every package, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
