//! The path of a packet that enters a wire: position → checks → hop.

use dataplane_common::{
    Reason, Verdict,
    abi::{HopKind, Position, PositionFlags},
};

use crate::{account, ctx_tc::TcFrame, maps, probe, split, trace};

/// Decides about a frame, counts it, and reports it if it is sampled.
#[inline(always)]
pub(crate) fn ingress(frame: &TcFrame) -> Verdict {
    let verdict = decide(frame);
    let reason = verdict.reason();
    let count = account::reason(reason);
    trace::sample(frame, reason, count);
    verdict
}

#[inline(always)]
fn decide(frame: &TcFrame) -> Verdict {
    let Some(entry) = maps::position(frame.ifindex()) else {
        return Verdict::Drop(Reason::Unwired);
    };
    let position = entry.get();
    if let Some(reason) = refusal(frame, position) {
        return Verdict::Drop(reason);
    }
    let hop = entry.hop_at(maps::generation());
    let verdict = match hop.kind() {
        HopKind::Peer => Verdict::RedirectPeer(hop.ifindex, Reason::Forwarded),
        HopKind::Egress => Verdict::RedirectEgress(hop.ifindex, Reason::Forwarded),
        HopKind::Split => split::verdict(frame, hop.ifindex),
        HopKind::Parked => return Verdict::Drop(Reason::Parked),
        HopKind::None if position.is_absent() => return Verdict::Drop(Reason::Unwired),
        HopKind::None => return Verdict::Drop(Reason::Inactive),
    };
    if !matches!(verdict, Verdict::Drop(_)) {
        account::wire(position.slot, frame.len());
    }
    verdict
}

/// Why this frame goes no further. What most positions are is compared first, and whole: whatever else a position may be
/// costs them nothing.
#[inline(always)]
fn refusal(frame: &TcFrame, position: &Position) -> Option<Reason> {
    const IP: u32 = PositionFlags::IP_PAYLOAD.bits();
    const ETHERNET: u32 = PositionFlags::ETHERNET_PAYLOAD.bits();
    match position.flags {
        IP => no_ip(frame),
        ETHERNET => None,
        _ if probe::is_reply(frame, position) => Some(Reason::ProbeReply),
        _ if position.is_ip_only() => no_ip(frame),
        _ => None,
    }
}

/// Why this frame may not enter a wire that carries IP.
#[inline(always)]
fn no_ip(frame: &TcFrame) -> Option<Reason> {
    if frame.has_vlan_tag() {
        Some(Reason::VlanTagged)
    } else if !frame.is_ip_or_arp() {
        Some(Reason::NotIp)
    } else {
        None
    }
}
