//! Splits: positions from which more than one way leads on, and the table of the flows that took one.
//!
//! A position leads to a split by a hop of kind [`HopKind::Split`](super::HopKind): so a change of its rules or hops is
//! staged and flipped like any other hop, and a position that is no split pays nothing. A split is never written again
//! once a position leads to it; another one is made, and the old one goes when nothing leads to it any more.

use super::{Hop, macros::abi_struct};

/// Branches of one split at most. A power of two: the verifier understands a masked index.
pub const MAX_BRANCHES: usize = 8;
/// Rules of one split at most.
pub const MAX_RULES: usize = 8;

/// An IPv6 address, or an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`): 16 octets in network order, as two words of
/// memory. Words, so that they are compared and masked eight octets at a time.
pub type AddressWords = [u64; 2];

/// The words of 16 octets in network order.
#[must_use]
#[inline(always)]
pub const fn address_words(octets: &[u8; 16]) -> AddressWords {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *octets;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// The words of an IPv4 address in network order.
#[must_use]
#[inline(always)]
pub const fn mapped_words(octets: [u8; 4]) -> AddressWords {
    let [a, b, c, d] = octets;
    [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
}

/// Properties of a split that the program tests per packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitFlags(u32);

impl SplitFlags {
    /// Packets enter here on their way to the client: the far side is their source. Without it, their destination.
    pub const FROM_FAR: Self = Self(1);
    /// Every branch of the wire passes here (it is the client's end), so a flow whose branch is not among this split's
    /// has lost it and gets another. At other ends such a flow is left to the client's.
    pub const DECIDES: Self = Self(2);

    /// The bits as they are stored in [`Split::flags`].
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

abi_struct! {
    /// Which packets belong to which branches. Every condition must hold; the far side is the wire's other end as the
    /// client sees it. Conditions are masks and values, so that a rule is tested without a jump for each.
    #[derive(Default)]
    pub struct SplitRule = 64 {
        /// Far side's network: its address and `mask` must give exactly this.
        pub network: [u64; 2],
        /// All zeroes: every address.
        pub mask: [u64; 2],
        /// Lowest port of the far side.
        pub first_port: u16,
        /// Highest port of the far side, not below the lowest.
        pub last_port: u16,
        /// Protocol number; 1 stands for ICMP and ICMPv6.
        pub protocol: u8,
        /// All ones; 0: every protocol.
        pub protocol_mask: u8,
        /// 4 or 6.
        pub family: u8,
        /// All ones; 0: both.
        pub family_mask: u8,
        /// [`SplitRule::COUNTS`] and [`SplitRule::PORTS`]; 0: there is no such rule.
        pub flags: u64,
        /// Share of each branch of the new flows that the rule names.
        pub shares: Shares,
    }
}

/// Shares of new flows, by index of the branch.
pub type Shares = [u16; MAX_BRANCHES];

impl SplitRule {
    /// The rule counts.
    pub const COUNTS: u64 = 1;
    /// The packet must have ports; without it, the range is to be every port.
    pub const PORTS: u64 = 2;
}

abi_struct! {
    /// One way on from a split.
    #[derive(Default)]
    pub struct SplitBranch = 24 {
        /// The next interface.
        pub hop: Hop,
        /// Names the branch in [`FlowPin::branch`]: the same at every split of the wire, and in every version of it. Its
        /// lowest three bits are the branch's index, so the index stays the same too; the others are never all 0. 0: no
        /// branch has this index.
        pub id: u32,
        /// [`SplitBranch::DRAINS`] or 0.
        pub flags: u32,
        /// Index of this branch's [`WireCounters`](super::WireCounters), or [`SplitBranch::NO_SLOT`].
        pub slot: u32,
        /// 1 and the index of the branch that this one takes over from; 0: none. Flows that are not new stay there: see
        /// [`Split::learn_until_ns`].
        pub before: u32,
    }
}

impl SplitBranch {
    /// The branch takes no new flows: a SYN on a flow that is here begins another one elsewhere.
    pub const DRAINS: u32 = 1;
    /// The slot of a branch whose packets are not counted here.
    pub const NO_SLOT: u32 = u32::MAX;

    /// The index of the branch with this id. Masked, which is what the verifier understands of a bound.
    #[must_use]
    #[inline(always)]
    pub const fn index_of(id: u32) -> usize {
        id as usize & (MAX_BRANCHES - 1)
    }
}

abi_struct! {
    /// Where packets go on from a split position. Key: the split's number (`u32`), never given twice.
    #[derive(Default)]
    pub struct Split = 744 {
        /// The wire: flows of two wires never meet.
        pub scope: u64,
        /// Until then (`CLOCK_MONOTONIC`) a flow that is seen for the first time counts as older than the split, unless it
        /// begins a TCP connection. Later only a TCP connection of a branch that drains does.
        pub learn_until_ns: u64,
        /// By index.
        pub branches: [SplitBranch; MAX_BRANCHES],
        /// In order: the first that holds decides.
        pub rules: [SplitRule; MAX_RULES],
        /// Shares of new flows that no rule names.
        pub otherwise: Shares,
        /// [`SplitFlags`] bits.
        pub flags: u32,
        /// Index of the branch that packets without a flow take.
        pub first: u32,
    }
}

abi_struct! {
    /// A flow of one wire: both directions give the same key. Fragments but the first have no ports; their key is of a
    /// kind of its own and holds the fragmented packet's number.
    #[derive(Default, PartialOrd, Ord, Hash)]
    pub struct FlowKey = 48 {
        /// [`Split::scope`].
        pub scope: u64,
        /// The lower address and port; of a fragment, the sender's address.
        pub low: [u64; 2],
        /// The higher address and port; of a fragment, the receiver's address.
        pub high: [u64; 2],
        /// In host order. Of an ICMP echo, its identifier; of a fragment, the upper half of the packet's number.
        pub low_port: u16,
        /// In host order. Of an ICMP echo, its identifier; of a fragment, the lower half of the packet's number.
        pub high_port: u16,
        /// Protocol number.
        pub protocol: u8,
        /// 0 of a flow, [`FlowKey::FRAGMENT`] of a fragmented packet.
        pub kind: u8,
        /// Always 0.
        pub zero: u16,
    }
}

impl FlowKey {
    /// See [`FlowKey::kind`].
    pub const FRAGMENT: u8 = 1;
}

abi_struct! {
    /// The branch that a flow took. Its words are written in place while packets pass.
    #[derive(Default)]
    pub struct FlowPin = 16 {
        /// [`SplitBranch::id`].
        pub branch: u32,
        /// Which ends of a TCP connection have closed it: [`FlowPin::FIN_LOW`] and so on.
        pub state: u32,
        /// When a packet of it was seen (`CLOCK_MONOTONIC`), to a tenth of a second.
        pub seen_ns: u64,
    }
}

impl FlowPin {
    /// Of a flow that is not in the table.
    pub const NONE: Self = Self {
        branch: 0,
        state: 0,
        seen_ns: 0,
    };
    /// The lower end has sent FIN.
    pub const FIN_LOW: u32 = 1;
    /// The higher end has sent FIN.
    pub const FIN_HIGH: u32 = 2;
    /// One end has sent RST.
    pub const RESET: u32 = 4;
    /// `seen_ns` is not written again before this many nanoseconds: a word that every processor writes is slow.
    pub const SEEN_EVERY_NS: u64 = 100_000_000;

    /// Whether the TCP connection is over: what comes still belongs to it, but a SYN begins another.
    #[must_use]
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        let both = Self::FIN_LOW | Self::FIN_HIGH;
        self.state & Self::RESET != 0 || self.state & both == both
    }
}

impl Split {
    /// The branch with this id, if it passes here.
    #[must_use]
    #[inline(always)]
    pub const fn branch(&self, id: u32) -> Option<&SplitBranch> {
        let branch = &self.branches[SplitBranch::index_of(id)];
        if id != 0 && branch.id == id {
            Some(branch)
        } else {
            None
        }
    }

    /// Whether all of `flags` are set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flags: SplitFlags) -> bool {
        self.flags & flags.bits() == flags.bits()
    }
}
