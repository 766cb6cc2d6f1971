//! The path of a packet that enters a wire: position → checks → hop.

use dataplane_common::{
    Reason, Verdict,
    abi::{HopKind, Position},
};

use crate::{account, ctx_tc::TcFrame, maps, trace};

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
        HopKind::Peer => Verdict::RedirectPeer(hop.ifindex),
        HopKind::Egress => Verdict::RedirectEgress(hop.ifindex),
        HopKind::Parked => return Verdict::Drop(Reason::Parked),
        HopKind::None if position.is_absent() => return Verdict::Drop(Reason::Unwired),
        HopKind::None => return Verdict::Drop(Reason::Inactive),
    };
    account::wire(position.slot, frame.len());
    verdict
}

/// Why this frame may not enter a wire of this payload.
#[inline(always)]
fn refusal(frame: &TcFrame, position: &Position) -> Option<Reason> {
    if !position.is_ip_only() {
        None
    } else if frame.has_vlan_tag() {
        Some(Reason::VlanTagged)
    } else if !frame.is_ip_or_arp() {
        Some(Reason::NotIp)
    } else {
        None
    }
}
