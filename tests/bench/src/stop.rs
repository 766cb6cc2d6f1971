//! Ctrl-C ends a run by unwinding it, so that every guard removes what it made.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for SIGINT and SIGTERM.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("SIGINT")?,
            signal(SignalKind::terminate()).context("SIGTERM")?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            REQUESTED.store(true, Ordering::Relaxed);
            eprintln!("ending; what was made is removed first");
        });
        // The runtime stays alive, so that a second signal does not kill the process half-way through the removal.
        thread::park();
    });
    Ok(())
}

/// Whether the run should end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error if the run should end. Every loop that may last calls this.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
