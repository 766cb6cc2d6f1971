//! Sampled accounts of packets, from the ring buffer.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use dataplane_common::abi::Event;

/// Reads events. Its file descriptor becomes readable when there are some.
pub struct EventReader(RingBuf<MapData>);

impl EventReader {
    pub(crate) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The next event, or `None` when all have been read.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.0.next()?;
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Reads the fields one by one, so that no layout is assumed of the bytes but their order.
fn parse(bytes: &[u8]) -> Option<Event> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Event {
        ifindex: word(0)?,
        reason: word(4)?,
        frame_len: word(8)?,
        snapshot_len: word(12)?,
        snapshot: *bytes.get(16..)?.first_chunk()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back_and_a_short_one_refused() {
        let mut bytes = vec![0; 96];
        bytes[0..4].copy_from_slice(&7u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&3u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&60u32.to_ne_bytes());
        bytes[12..16].copy_from_slice(&2u32.to_ne_bytes());
        bytes[16..18].copy_from_slice(&[0xaa, 0xbb]);
        let event = parse(&bytes).unwrap();
        assert_eq!((event.ifindex, event.reason, event.frame_len), (7, 3, 60));
        assert_eq!(event.frame(), [0xaa, 0xbb]);
        assert!(parse(&bytes[..95]).is_none());
    }
}
