//! Where and with what right the measuring threads run.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, gettid},
};

/// Low among the real-time priorities: above every ordinary task, below the kernel's own threads.
const FIFO_PRIORITY: &str = "10";

/// One of the two processors that a measurement uses; the same one when the machine has only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cpu {
    /// For the client, and for everything that shares one processor.
    First,
    /// For the server, when both ends run at once.
    Second,
}

/// Binds the calling thread to `cpu` and lets it preempt ordinary tasks, if that is allowed. The thread keeps
/// this until it ends, so measuring threads are made for one measurement each.
pub(crate) fn claim(cpu: Cpu) -> Result<()> {
    let numbers = allowed()?;
    let number = match cpu {
        Cpu::First => numbers.first(),
        Cpu::Second => numbers.get(1).or(numbers.first()),
    };
    let mut set = CpuSet::new();
    set.set(*number.context("no processor is allowed")?)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("bind the thread to a processor")?;
    if real_time_allowed() {
        let _ = set_fifo(gettid());
    }
    Ok(())
}

/// Whether this process may use SCHED_FIFO. Without it the numbers are noisier, and the report says so.
pub(crate) fn real_time_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| std::thread::spawn(|| set_fifo(gettid())).join().unwrap_or(false))
}

/// `chrt` takes a thread's id; the system call itself has no safe wrapper in the crates used here.
fn set_fifo(thread: Pid) -> bool {
    let mut command = Command::new("chrt");
    command.args(["--fifo", "--pid", FIFO_PRIORITY, &thread.to_string()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Processors that the process may use. Read once: a claiming thread narrows its own set.
fn allowed() -> Result<&'static [usize]> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    if ALLOWED.get().is_none() {
        let process = Pid::from_raw(i32::try_from(std::process::id())?);
        let set = sched_getaffinity(process).context("read the allowed processors")?;
        let numbers = (0..CpuSet::count())
            .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
            .collect();
        let _ = ALLOWED.set(numbers);
    }
    Ok(ALLOWED.get().map(Vec::as_slice).unwrap_or_default())
}
