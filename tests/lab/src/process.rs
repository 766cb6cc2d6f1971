//! Child processes that end with their guard.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::within;

/// A child process; killed by its pid and waited for on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts `command` in the calling thread's network namespace.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("start {what}"))?;
        Ok(Self { child, what })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.what))
    }

    /// Ends it with SIGKILL, as a crash would, and waits.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("kill {}", self.what))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.what))
    }

    /// Asks it to end with SIGTERM and waits at most `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Waits at most `limit` for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.what);
        within(limit, &what, || self.try_wait())
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("wait for {}", self.what))
    }

    /// Everything that it writes to its standard output (which must be piped) until it closes it.
    pub fn read_stdout(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut pipe = self.child.stdout.take().context("standard output is not piped")?;
        pipe.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The same for its standard error.
    pub fn read_stderr(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut pipe = self.child.stderr.take().context("standard error is not piped")?;
        pipe.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a command's output and errors to the end of a file.
pub fn log_to(command: &mut Command, path: &Path) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(())
}
