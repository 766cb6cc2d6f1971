//! Control alone, without an agent, on a folder of state.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tieline_lab::{Process, log_to, slow};

use super::{Control, memory, node::program};
use crate::stop;

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether control answers.
const LOOK: Duration = Duration::from_millis(2);

/// A `tieline control` of its own. Its socket and its log go with the guard; the state stays the caller's.
pub(crate) struct ControlProcess {
    process: Process,
    folder: TempDir,
    control: Control,
    started_in: Duration,
}

impl ControlProcess {
    /// Starts it on the state in `state` and waits for its first answer.
    pub(crate) fn start(state: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tl-bench-").tempdir()?;
        let run = folder.path().join("run");
        let mut command = Command::new(program()?);
        command.args(["control", "--http", "off", "--log-level", "warn"]);
        command.arg("--run-dir").arg(&run).arg("--state-dir").arg(state);
        // Ctrl-C at the terminal is for the benchmark, which then ends the process itself.
        command.process_group(0);
        log_to(&mut command, &log(&folder))?;
        let begun = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let socket = run.join("control.sock");
        let control = loop {
            stop::check()?;
            if let Some(status) = process.try_wait()? {
                bail!("control ended with {status}: {}", read(&log(&folder)));
            }
            let control = Control::connect(&socket);
            if let Ok(control) = control
                && control.status().is_ok()
            {
                break control;
            }
            if begun.elapsed() > slow(START_LIMIT) {
                bail!("control does not answer: {}", read(&log(&folder)));
            }
            std::thread::sleep(LOOK);
        };
        Ok(Self {
            process,
            control,
            started_in: begun.elapsed(),
            folder,
        })
    }

    /// From its start to its first answer.
    pub(crate) const fn started_in(&self) -> Duration {
        self.started_in
    }

    /// What it answers.
    pub(crate) const fn control(&self) -> &Control {
        &self.control
    }

    /// Octets of it that are in memory at this moment.
    pub(crate) fn memory(&self) -> Result<f64> {
        memory::of_process(self.process.pid())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        let status = self.process.stop(slow(STOP_LIMIT)).context("end control")?;
        if !status.success() {
            bail!("control ended with {status}: {}", read(&log(&self.folder)));
        }
        Ok(())
    }
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("control.log")
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
