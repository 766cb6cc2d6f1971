//! The maps, one typed wrapper each: map names appear here and nowhere else in the agent.

mod counters;
mod events;
mod flows;
mod generation;
mod layout;
mod liveness;
mod positions;
mod reasons;
mod splits;

pub(crate) use counters::Counters;
pub use events::EventReader;
pub(crate) use flows::Flows;
pub(crate) use generation::GenerationWord;
pub(crate) use layout::{Layout, Mismatch, PINNED};
pub(crate) use liveness::Liveness;
pub(crate) use positions::Positions;
pub(crate) use reasons::Reasons;
pub(crate) use splits::Splits;

/// How many copies a per-CPU map holds of each value: the processors that the kernel may ever bring up.
pub(crate) fn possible_cpus() -> std::io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let highest = text.trim().rsplit([',', '-']).next().ok_or_else(invalid)?;
    let highest: usize = highest.parse().map_err(|_| invalid())?;
    Ok(highest + 1)
}
