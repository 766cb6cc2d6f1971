//! The forwarding table of wires: where a packet goes is decided by where it entered.

use super::macros::abi_struct;

/// The number of a node's plan: starts at 1, only grows. 0 means "no plan yet".
pub type Generation = u64;

/// How a packet is handed to the interface at the end of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopKind {
    /// Nowhere: the position exists but carries nothing (yet, or any more).
    None,
    /// Into the network namespace behind a veth's host end (`bpf_redirect_peer`).
    Peer,
    /// Out of the interface itself (`bpf_redirect`): exact Ethernet semantics, or a tap or NIC.
    Egress,
}

abi_struct! {
    /// One step of a wire: the interface that the packet leaves by.
    #[derive(Default, PartialOrd, Ord)]
    pub struct Hop = 8 {
        /// Index of the target interface in the agent's network namespace; 0 for [`HopKind::None`].
        pub ifindex: u32,
        /// A [`HopKind`] as a number; an unknown number means [`HopKind::None`].
        pub kind: u32,
    }
}

impl Hop {
    /// The hop that leads nowhere.
    pub const NONE: Self = Self { ifindex: 0, kind: 0 };
    const PEER: u32 = 1;
    const EGRESS: u32 = 2;

    /// Into the namespace behind the veth whose host end is `ifindex`.
    #[must_use]
    pub const fn peer(ifindex: u32) -> Self {
        Self {
            ifindex,
            kind: Self::PEER,
        }
    }

    /// Out of interface `ifindex`.
    #[must_use]
    pub const fn egress(ifindex: u32) -> Self {
        Self {
            ifindex,
            kind: Self::EGRESS,
        }
    }

    /// How the packet is handed over. Numbers this build does not know lead nowhere, so that a corrupt entry
    /// can lose a packet but never misdeliver one.
    #[must_use]
    #[inline(always)]
    pub const fn kind(self) -> HopKind {
        match self.kind {
            Self::PEER => HopKind::Peer,
            Self::EGRESS => HopKind::Egress,
            _ => HopKind::None,
        }
    }
}

/// Properties of a position that the program tests per packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionFlags(u32);

impl PositionFlags {
    /// The wire carries IP: ARP, IPv4 and IPv6 frames without a VLAN tag, nothing else.
    pub const IP_PAYLOAD: Self = Self(1);
    /// The wire carries Ethernet: every frame.
    pub const ETHERNET_PAYLOAD: Self = Self(0);

    /// The bits as they are stored in [`Position::flags`].
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

abi_struct! {
    /// What the kernel knows about a position, that is, about an interface at which packets enter a wire.
    /// Key: the interface's index (`u32`).
    ///
    /// It holds two hops so that a plan can be laid out completely before any packet sees it: `next` counts
    /// from the moment at which the node's generation word reaches `next_since`, `current` until then. One
    /// write to that word moves every staged position at once.
    pub struct Position = 32 {
        /// The generation from which on `next` is in force.
        pub next_since: u64,
        /// In force while the node's generation is below `next_since`.
        pub current: Hop,
        /// In force from generation `next_since` on.
        pub next: Hop,
        /// Index of this position's [`WireCounters`].
        pub slot: u32,
        /// [`PositionFlags`] bits.
        pub flags: u32,
    }
}

impl Position {
    /// A position that begins to forward to `hop` at generation `since`.
    #[must_use]
    pub const fn starting(since: Generation, hop: Hop, slot: u32, flags: PositionFlags) -> Self {
        Self {
            next_since: since,
            current: Hop::NONE,
            next: hop,
            slot,
            flags: flags.bits(),
        }
    }

    /// The hop in force at `generation`.
    #[must_use]
    #[inline(always)]
    pub const fn hop_at(&self, generation: Generation) -> Hop {
        if generation >= self.next_since {
            self.next
        } else {
            self.current
        }
    }

    /// The same position with `hop` staged for generation `since`; until then it does what it does at `now`.
    #[must_use]
    pub const fn staged(&self, now: Generation, since: Generation, hop: Hop) -> Self {
        Self {
            next_since: since,
            current: self.hop_at(now),
            next: hop,
            slot: self.slot,
            flags: self.flags,
        }
    }

    /// Whether only untagged ARP, IPv4 and IPv6 frames may enter.
    #[must_use]
    #[inline(always)]
    pub const fn is_ip_only(&self) -> bool {
        self.flags & PositionFlags::IP_PAYLOAD.bits() != 0
    }
}

abi_struct! {
    /// What entered a wire at one position and was handed on. One per CPU; the sum is the truth.
    #[derive(Default)]
    pub struct WireCounters = 16 {
        /// Frames. A segmentation-offload super-packet is one frame, as in the interface's own counters.
        pub packets: u64,
        /// Octets from the Ethernet header on, without the frame check sequence.
        pub bytes: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop() -> impl Strategy<Value = Hop> {
        prop_oneof![
            Just(Hop::NONE),
            (1..u32::MAX).prop_map(Hop::peer),
            (1..u32::MAX).prop_map(Hop::egress)
        ]
    }

    #[test]
    fn an_unknown_hop_kind_leads_nowhere() {
        for kind in 3..=1000 {
            assert_eq!(Hop { ifindex: 7, kind }.kind(), HopKind::None);
        }
    }

    proptest! {
        #[test]
        fn a_new_position_carries_nothing_before_its_generation(h in hop(), since in 1..u64::MAX) {
            let p = Position::starting(since, h, 0, PositionFlags::IP_PAYLOAD);
            prop_assert_eq!(p.hop_at(since - 1), Hop::NONE);
            prop_assert_eq!(p.hop_at(since), h);
            prop_assert_eq!(p.hop_at(u64::MAX), h);
        }

        #[test]
        fn staging_changes_nothing_until_the_flip(a in hop(), b in hop(), g in 1..1_000_000u64, step in 1..1000u64) {
            let before = Position::starting(g, a, 3, PositionFlags::ETHERNET_PAYLOAD);
            let staged = before.staged(g, g + step, b);
            for now in g..g + step {
                prop_assert_eq!(staged.hop_at(now), before.hop_at(now));
            }
            prop_assert_eq!(staged.hop_at(g + step), b);
            prop_assert_eq!((staged.slot, staged.flags), (before.slot, before.flags));
        }
    }
}
