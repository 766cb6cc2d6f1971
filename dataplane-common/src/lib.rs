//! The contract between Tieline's kernel programs and its agent.
//!
//! Both sides compile this crate: the key and value types of every map ([`abi`]), the names they are found
//! under ([`names`]), their sizes ([`limits`]), what became of a packet and why ([`verdict`]), and the reading
//! of packet headers ([`pkt`]). Nothing here does IO, and nothing here needs `std`.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod limits;
pub mod names;
pub mod pkt;
pub mod verdict;

pub use abi::ABI_VERSION;
pub use verdict::{Reason, Verdict};
