//! Keys and values of the maps, laid out identically for the kernel programs and the agent.
//!
//! Every type is `repr(C)`, made of integers and byte arrays only, without padding; `abi_struct!` checks
//! size and padding at compile time in both builds. Integers are in host order; addresses are byte arrays in
//! network order.

mod event;
mod macros;
mod split;
mod wire;

pub use event::{EVENT_SNAPSHOT_LEN, Event};
pub use macros::Plain;
pub use split::{
    AddressWords, FlowKey, FlowPin, MAX_BRANCHES, MAX_RULES, Shares, Split, SplitBranch, SplitFlags,
    SplitRule, address_words, mapped_words,
};
pub use wire::{Generation, Hop, HopKind, Position, PositionFlags, WireCounters};

/// Version of everything in this module. It is part of the pin path, so an agent never reuses maps of another
/// layout. `cargo xtask tidy` fails when the layout changes and this number does not.
pub const ABI_VERSION: u32 = 2;
