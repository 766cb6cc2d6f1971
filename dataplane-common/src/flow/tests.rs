//! Reading of flows, against the packet parser; the choice of a branch, against a simple model.

mod choice;
mod frames;
mod keys;

use super::{Family, Octets, Seen};
use frames::Tuple;

/// A frame in memory.
struct Frame<'a>(&'a [u8]);

impl Octets for Frame<'_> {
    fn octets<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.0.get(at as usize..)?.first_chunk().copied()
    }
}

/// Reads a frame as the kernel program does: by the type field.
fn seen(frame: &[u8]) -> Seen {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => Seen::read(&Frame(frame), Family::V4, 14),
        Some([0x86, 0xdd]) => Seen::read(&Frame(frame), Family::V6, 14),
        _ => Seen::OTHER,
    }
}
