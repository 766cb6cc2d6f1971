//! What the `.proto` files say, as Rust.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from the .proto files, which carry the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));
