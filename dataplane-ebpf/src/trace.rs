//! Sampled events, compiled in and removed by the verifier when sampling is off; and per-packet logging, which
//! is in the object only with the `trace` feature.

use dataplane_common::Reason;

use crate::{ctx_tc::TcFrame, globals, maps};

/// Sends an event for every lost frame and for each n-th of the others, if sampling is on. `count` is the reason's
/// count on this CPU, so no other state is needed to take each n-th.
#[inline(always)]
pub(crate) fn sample(frame: &TcFrame, reason: Reason, count: u64) {
    #[cfg(feature = "trace")]
    log(frame, reason);
    let every = globals::event_sample();
    if every == 0 {
        return;
    }
    if reason.is_loss() || count.is_multiple_of(u64::from(every)) {
        send(frame, reason);
    }
}

#[inline(always)]
fn send(frame: &TcFrame, reason: Reason) {
    let Some(mut entry) = maps::reserve_event() else {
        return;
    };
    let event = entry.as_mut_ptr();
    #[expect(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "ring buffer memory is written in place"
    )]
    // SAFETY: the ring buffer gave a whole event; every field is written before it is submitted.
    unsafe {
        (*event).ifindex = frame.ifindex();
        (*event).reason = reason.number();
        (*event).frame_len = frame.len();
        core::ptr::write_bytes(&raw mut (*event).snapshot, 0, 1);
        (*event).snapshot_len = frame.snapshot(&raw mut (*event).snapshot);
    }
    entry.submit(0);
}

#[cfg(feature = "trace")]
#[inline(always)]
fn log(frame: &TcFrame, reason: Reason) {
    aya_log_ebpf::debug!(
        frame.context(),
        "ifindex {} reason {}",
        frame.ifindex(),
        reason.number()
    );
}
