//! What memory is used for, as the kernel accounts it.

use std::fs;

use anyhow::{Context as _, Result};

const KIB: f64 = 1024.0;

/// Octets of a process that are in memory at this moment.
pub(crate) fn of_process(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    line_kib(&status, "VmRSS").map(|kib| kib * KIB)
}

/// Octets that the kernel holds for itself at this moment, on the whole machine: what it cannot give back of its
/// small objects, its per-processor data, and what it has mapped. What others do shows in it.
pub(crate) fn of_kernel() -> Result<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let mut kib = 0.0;
    for name in ["SUnreclaim", "Percpu", "VmallocUsed"] {
        kib += line_kib(&meminfo, name)?;
    }
    Ok(kib * KIB)
}

/// The value of the line `NAME:   VALUE kB`.
fn line_kib(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.with_context(|| format!("no {name}"))?;
    value
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let text = "VmRSSx:\t   1 kB\nVmRSS:\t  20 kB\nThreads:\t3\n";
        assert_eq!(line_kib(text, "VmRSS").unwrap(), 20.0);
        assert!(line_kib(text, "VmR").is_err());
    }

    #[test]
    fn this_process_and_the_kernel_use_memory() {
        assert!(of_process(std::process::id()).unwrap() > 0.0);
        assert!(of_kernel().unwrap() > 0.0);
    }
}
