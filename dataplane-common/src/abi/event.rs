//! A sampled account of one packet, sent through the ring buffer when sampling is on.

use super::macros::abi_struct;
use crate::verdict::Reason;

/// How many octets of the frame an [`Event`] carries: Ethernet, IPv6 and TCP headers fit.
pub const EVENT_SNAPSHOT_LEN: usize = 80;

abi_struct! {
    /// One packet that was forwarded or dropped.
    pub struct Event = 96 {
        /// Index of the interface at which the packet entered.
        pub ifindex: u32,
        /// A [`Reason`] as a number.
        pub reason: u32,
        /// Length of the whole frame in octets.
        pub frame_len: u32,
        /// How many octets of `snapshot` are valid.
        pub snapshot_len: u32,
        /// The beginning of the frame, from the Ethernet header on.
        pub snapshot: [u8; EVENT_SNAPSHOT_LEN],
    }
}

impl Event {
    /// The reason, or `None` when a newer kernel program sent a number this build does not know.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_number(self.reason)
    }

    /// The valid part of the snapshot.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        let len = usize::try_from(self.snapshot_len).unwrap_or(EVENT_SNAPSHOT_LEN);
        self.snapshot.get(..len).unwrap_or(&self.snapshot)
    }
}
