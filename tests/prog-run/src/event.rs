//! Reading events out of the ring.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::abi::{EVENT_SNAPSHOT_LEN, Event};

/// The event in one record of the ring.
pub(crate) fn decode(record: &[u8]) -> Result<Event> {
    ensure!(
        record.len() == size_of::<Event>(),
        "an event of {} octets",
        record.len()
    );
    let word = |at: usize| -> Result<u32> {
        let octets = record.get(at..at + 4).context("a word of the event")?;
        Ok(u32::from_ne_bytes(octets.try_into()?))
    };
    let snapshot = record
        .get(16..16 + EVENT_SNAPSHOT_LEN)
        .context("the event's snapshot")?;
    Ok(Event {
        ifindex: word(0)?,
        reason: word(4)?,
        frame_len: word(8)?,
        snapshot_len: word(12)?,
        snapshot: snapshot.try_into()?,
    })
}
