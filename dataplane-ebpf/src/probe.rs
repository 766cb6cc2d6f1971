//! Replies to the agent's probes.

use aya_ebpf::bindings::__sk_buff;
use dataplane_common::{
    abi::{Position, PositionFlags},
    flow::Octets as _,
    probe,
};

use crate::{ctx_tc::TcFrame, globals, maps};

/// Whether the frame answers a probe of this position; if so, the time is noted.
#[inline(always)]
pub(crate) fn is_reply(frame: &TcFrame, position: &Position) -> bool {
    let cookie = globals::probe_cookie();
    if cookie == 0 || frame.len() != probe::FRAME_LEN || !position.has(PositionFlags::PROBED) {
        return false;
    }
    let found = is_reply_for(frame.raw(), position.slot, cookie);
    if found {
        maps::note_alive(position.slot);
    }
    found
}

/// A function of its own: the window is large, and few frames have this length.
#[inline(never)]
fn is_reply_for(ctx: *mut __sk_buff, slot: u32, cookie: u64) -> bool {
    let frame = TcFrame::again(ctx);
    match (frame.family(), frame.octets(probe::WINDOW_AT)) {
        (Some(family), Some(window)) => probe::is_reply(family, &window, slot, cookie),
        _ => false,
    }
}
