//! The contract between Tieline's kernel programs and its agent.
//!
//! Both sides compile this crate: the key and value types of every map ([`abi`]), the names they are found
//! under ([`names`]), their sizes ([`limits`]), what became of a packet and why ([`verdict`]), the reading
//! of packet headers ([`pkt`]), the choice of a branch for a flow ([`flow`]), and the form of probes ([`probe`]). Nothing here does IO, and nothing here needs `std`.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod flow;
pub mod limits;
pub mod names;
pub mod pkt;
pub mod probe;
pub mod verdict;

pub use abi::ABI_VERSION;
pub use verdict::{Reason, Verdict};
