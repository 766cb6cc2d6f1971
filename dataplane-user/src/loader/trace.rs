//! Reads what the programs of a `trace` build log, for each packet, and hands it to the agent's own log.

use std::{path::Path, sync::Arc, time::Duration};

use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use tracing::{info, warn};

/// How often the ring is emptied.
const INTERVAL: Duration = Duration::from_millis(50);

/// The reader, which ends when this is dropped.
pub(crate) struct Trace(#[expect(dead_code, reason = "the thread looks whether it is there")] Arc<()>);

/// Begins to read the log of the pinned program. Without a log the agent runs on: this is a build for development.
pub(super) fn follow(program: &Path) -> Option<Trace> {
    let id = match ProgramInfo::from_pin(program) {
        Ok(info) => info.id(),
        Err(error) => {
            warn!(%error, "cannot find the program whose log to read");
            return None;
        }
    };
    let mut logger = match EbpfLogger::init_from_id(id) {
        Ok(logger) => logger,
        Err(error) => {
            warn!(%error, id, "the program has no log; was it pinned by a build without the feature `trace`?");
            return None;
        }
    };
    let alive = Arc::new(());
    let watch = Arc::downgrade(&alive);
    let read = move || {
        while watch.strong_count() > 0 {
            logger.flush();
            std::thread::sleep(INTERVAL);
        }
    };
    let thread = std::thread::Builder::new().name("tl-trace".to_owned());
    match thread.spawn(read) {
        Ok(_) => info!(id, "reading the program's log"),
        Err(error) => warn!(%error, "cannot read the program's log"),
    }
    Some(Trace(alive))
}
