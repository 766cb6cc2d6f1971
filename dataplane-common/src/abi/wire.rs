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
    /// Nowhere, as planned: the wire has no endpoint now.
    Parked,
    /// By one of several hops, chosen for each flow: see [`Split`](super::Split).
    Split,
}

abi_struct! {
    /// One step of a wire: the interface that the packet leaves by.
    #[derive(Default, PartialOrd, Ord)]
    pub struct Hop = 8 {
        /// Index of the target interface in the agent's network namespace; the number of the split for
        /// [`HopKind::Split`]; 0 where the hop leads nowhere.
        pub ifindex: u32,
        /// A [`HopKind`] as a number; an unknown number means [`HopKind::None`].
        pub kind: u32,
    }
}

impl Hop {
    /// The hop that leads nowhere.
    pub const NONE: Self = Self { ifindex: 0, kind: 0 };
    /// The hop of a wire that has no endpoint now.
    pub const PARKED: Self = Self {
        ifindex: 0,
        kind: Self::NOWHERE,
    };
    const PEER: u32 = 1;
    const EGRESS: u32 = 2;
    const NOWHERE: u32 = 3;
    const SPLIT: u32 = 4;

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

    /// By split number `split`.
    #[must_use]
    pub const fn split(split: u32) -> Self {
        Self {
            ifindex: split,
            kind: Self::SPLIT,
        }
    }

    /// The hop that these 8 bytes of a table are, read at once so that a reader never mixes two hops.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub const fn from_word(word: u64) -> Self {
        let word = word.to_le();
        Self {
            ifindex: word as u32,
            kind: (word >> 32) as u32,
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
            Self::NOWHERE => HopKind::Parked,
            Self::SPLIT => HopKind::Split,
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
    /// Replies to the agent's probes may come in here: they are noted and go no further.
    pub const PROBED: Self = Self(2);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits as they are stored in [`Position::flags`].
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

abi_struct! {
    /// What the kernel knows about a position, that is, about an interface at which packets enter a wire.
    /// Key: the interface's index (`u32`), or that less `OWN_INDEX_BASE` for interfaces that the agent made.
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

    /// The entry that leads nowhere and never will: as good as none. An array has no missing entries.
    pub const ABSENT: Self = Self {
        next_since: 0,
        current: Hop::NONE,
        next: Hop::NONE,
        slot: 0,
        flags: 0,
    };

    /// Whether this entry is as good as none.
    #[must_use]
    #[inline(always)]
    pub const fn is_absent(&self) -> bool {
        self.current.kind | self.next.kind == 0
    }

    /// The writes that turn `self` into `to`, one after the other, in a table whose entries are written in place while
    /// packets pass. A write may be seen half done, and a reader may see the first word before and the others after
    /// it; so each changes only what is not in force when it begins: what `current` holds while `next` counts, then
    /// the generation, then `next` while `current` counts.
    ///
    /// # Preconditions
    /// `self.next` counts at the node's generation, or `self` is absent, and `to` is [`Self::starting`] or
    /// [`Self::staged`] from `self`.
    #[must_use]
    pub const fn writes_in_place(&self, to: &Self) -> [Self; 3] {
        let fallback = Self {
            next_since: self.next_since,
            current: to.current,
            next: self.next,
            slot: to.slot,
            flags: to.flags,
        };
        let switched = Self {
            next_since: to.next_since,
            ..fallback
        };
        [fallback, switched, *to]
    }

    /// The writes that take the entry away in such a table; the last one leaves it absent.
    #[must_use]
    pub const fn removal_in_place(&self) -> [Self; 3] {
        let never = Self {
            next_since: u64::MAX,
            current: Hop::NONE,
            next: Hop::NONE,
            slot: self.slot,
            flags: self.flags,
        };
        self.writes_in_place(&never)
    }

    /// Whether all of `flags` are set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flags: PositionFlags) -> bool {
        self.flags & flags.bits() == flags.bits()
    }

    /// Whether only untagged ARP, IPv4 and IPv6 frames may enter.
    #[must_use]
    #[inline(always)]
    pub const fn is_ip_only(&self) -> bool {
        self.has(PositionFlags::IP_PAYLOAD)
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
            Just(Hop::PARKED),
            (1..u32::MAX).prop_map(Hop::peer),
            (1..u32::MAX).prop_map(Hop::egress),
            (1..u32::MAX).prop_map(Hop::split)
        ]
    }

    #[test]
    fn a_word_of_the_table_is_the_hop_that_lies_there() {
        let hop = Hop::egress(0x4000_1234);
        let bytes = [hop.ifindex.to_ne_bytes(), hop.kind.to_ne_bytes()].concat();
        assert_eq!(Hop::from_word(u64::from_ne_bytes(bytes.try_into().unwrap())), hop);
    }

    #[test]
    fn an_unknown_hop_kind_leads_nowhere() {
        for kind in 5..=1000 {
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

        #[test]
        fn a_reader_between_two_writes_in_place_sees_a_hop_of_before_or_after(
            a in hop(), b in hop(), c in hop(), g in 2..1_000_000u64, step in 1..1000u64,
        ) {
            // A position with history: `current` still holds a hop that is long out of force.
            let before = Position { current: c, ..Position::starting(g, a, 3, PositionFlags::IP_PAYLOAD) };
            let to = before.staged(g, g + step, b);
            let mut seen = before;
            for write in before.writes_in_place(&to) {
                for torn in mixtures(&seen, &write) {
                    prop_assert_eq!(torn.hop_at(g), a, "the hop in force does not change before the flip");
                }
                seen = write;
            }
            prop_assert_eq!(seen, to);
        }

        #[test]
        fn a_reader_during_a_removal_sees_the_hop_or_none(a in hop(), c in hop(), g in 2..1_000_000u64) {
            let before = Position { current: c, ..Position::starting(g, a, 3, PositionFlags::IP_PAYLOAD) };
            let mut seen = before;
            for write in before.removal_in_place() {
                for torn in mixtures(&seen, &write) {
                    let hop = torn.hop_at(g);
                    prop_assert!(hop == a || hop == Hop::NONE, "{hop:?}");
                }
                seen = write;
            }
            prop_assert!(seen.is_absent());
        }

        #[test]
        fn an_entry_that_is_made_in_place_carries_nothing_before_its_generation(a in hop(), g in 2..1_000_000u64, old in 0..1000u64) {
            for absent in [Position::ABSENT, Position { next_since: old, ..Position::ABSENT }, Position { next_since: u64::MAX, ..Position::ABSENT }] {
                let mut seen = absent;
                for write in absent.writes_in_place(&Position::starting(g, a, 1, PositionFlags::IP_PAYLOAD)) {
                    for torn in mixtures(&seen, &write) {
                        prop_assert_eq!(torn.hop_at(g - 1), Hop::NONE);
                    }
                    seen = write;
                }
                prop_assert_eq!(seen.hop_at(g), a);
            }
        }
    }

    /// Every state in which each of the three words is the old or the new one.
    fn mixtures(old: &Position, new: &Position) -> Vec<Position> {
        (0..8u8)
            .map(|bits| Position {
                next_since: if bits & 1 == 0 {
                    old.next_since
                } else {
                    new.next_since
                },
                current: if bits & 2 == 0 { old.current } else { new.current },
                next: if bits & 4 == 0 { old.next } else { new.next },
                ..*new
            })
            .collect()
    }
}
