//! Counting: every packet once by reason, every forwarded packet once by position.

use dataplane_common::Reason;

use crate::maps;

/// Counts one frame under `reason` and returns the new count of this CPU.
#[inline(always)]
pub(crate) fn reason(reason: Reason) -> u64 {
    let Some(count) = maps::reason_count(reason) else {
        return 0;
    };
    *count = count.wrapping_add(1);
    *count
}

/// Counts one frame of `bytes` octets at the position with this slot.
#[inline(always)]
pub(crate) fn wire(slot: u32, bytes: u32) {
    let Some(counters) = maps::wire_counters(slot) else {
        return;
    };
    counters.packets = counters.packets.wrapping_add(1);
    counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
}
