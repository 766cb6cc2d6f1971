//! Positions from which more than one way leads on: flow → branch → hop.

use aya_ebpf::bindings::__sk_buff;
use dataplane_common::{
    Reason, Verdict,
    abi::HopKind,
    flow::{Seen, choose},
};

use crate::{account, ctx_tc::TcFrame, maps};

/// Where the network header begins.
const NETWORK_AT: u32 = 14;

/// Where split number `number` sends the frame. What is not forwarded is not counted at the position either.
#[inline(always)]
pub(crate) fn verdict(frame: &TcFrame, number: u32) -> Verdict {
    let Way {
        kind,
        reason,
        ifindex,
    } = Way::from_word(way(frame.raw(), number));
    let reason = match reason {
        UNPINNED => Reason::Unpinned,
        FRAGMENT_ALONE => Reason::FragmentAlone,
        _ => Reason::Forwarded,
    };
    match kind {
        PEER => Verdict::RedirectPeer(ifindex, reason),
        EGRESS => Verdict::RedirectEgress(ifindex, reason),
        _ => Verdict::Drop(Reason::Inactive),
    }
}

const PEER: u8 = 1;
const EGRESS: u8 = 2;
const UNPINNED: u8 = 1;
const FRAGMENT_ALONE: u8 = 2;

/// Where to, and what to count: fits the one register in which a function of the kernel returns.
#[derive(Clone, Copy)]
struct Way {
    kind: u8,
    reason: u8,
    ifindex: u32,
}

impl Way {
    const NOWHERE: u64 = 0;

    #[inline(always)]
    const fn word(self) -> u64 {
        ((self.reason as u64) << 40) | ((self.kind as u64) << 32) | self.ifindex as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    const fn from_word(word: u64) -> Self {
        Self {
            kind: (word >> 32) as u8,
            reason: (word >> 40) as u8,
            ifindex: word as u32,
        }
    }
}

/// Chooses the branch and counts it; a [`Way`] as a word. A function of its own: the registers and the stack of the path
/// that most packets take know nothing of it.
#[inline(never)]
fn way(ctx: *mut __sk_buff, number: u32) -> u64 {
    let frame = TcFrame::again(ctx);
    let (Some(split), Some(seen)) = (maps::split(number), maps::scratch()) else {
        return Way::NOWHERE;
    };
    seen.reset();
    let quoted = read(ctx, NETWORK_AT, false, seen);
    if quoted != 0 {
        read(ctx, quoted, true, seen);
    }
    let (branch, reason) = choose(split, seen, &maps::Flows, maps::now());
    let kind = match branch.hop.kind() {
        HopKind::Peer => PEER,
        HopKind::Egress => EGRESS,
        HopKind::Split | HopKind::Parked | HopKind::None => return Way::NOWHERE,
    };
    account::wire(branch.slot, frame.len());
    let reason = match reason {
        Reason::Unpinned => UNPINNED,
        Reason::FragmentAlone => FRAGMENT_ALONE,
        _ => 0,
    };
    let way = Way {
        kind,
        reason,
        ifindex: branch.hop.ifindex,
    };
    way.word()
}

/// Reads one packet's headers, as [`Seen::read_packet`] does: a function of its own, as [`way`] is, so that what it needs
/// of the stack is free again afterwards.
#[inline(never)]
fn read(ctx: *mut __sk_buff, at: u32, quoted: bool, seen: &mut Seen) -> u32 {
    let frame = TcFrame::again(ctx);
    match frame.family() {
        Some(family) => seen.read_packet(&frame, family, at, quoted),
        None => 0,
    }
}
