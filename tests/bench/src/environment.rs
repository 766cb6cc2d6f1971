//! The machine a run took place on, without anything that names it.

use std::{collections::BTreeMap, fs, time::SystemTime};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What a reader must know to judge the numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Speculation mitigations in force: indirect calls are dear with some of them.
    pub mitigations: BTreeMap<String, String>,
    /// When the run began, RFC 3339 in UTC.
    pub date: String,
    /// Of what was measured.
    pub versions: BTreeMap<String, String>,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load: [f64; 3],
    /// Whether measuring threads ran with real-time priority.
    pub real_time: bool,
}

impl Environment {
    /// Reads it from the running system.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?,
            cpu: cpu_model()?,
            cpus: std::thread::available_parallelism()?.get(),
            mitigations: mitigations()?,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            versions: BTreeMap::from([
                ("tieline".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("abi".to_owned(), dataplane_common::ABI_VERSION.to_string()),
            ]),
            load: load()?,
            real_time: crate::cpu::real_time_allowed(),
        })
    }

    /// One paragraph for people.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let [one, five, fifteen] = self.load;
        let priority = if self.real_time {
            "SCHED_FIFO"
        } else {
            "ordinary (chrt was refused)"
        };
        let mitigations: Vec<_> = self
            .mitigations
            .iter()
            .map(|(name, state)| format!("{name}: {state}"))
            .collect();
        format!(
            "{} · Linux {} · {} CPUs of {} · load {one} {five} {fifteen} · priority {priority}\nmitigations: {}",
            self.date,
            self.kernel,
            self.cpus,
            self.cpu,
            mitigations.join("; "),
        )
    }
}

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path)
        .with_context(|| format!("read {path}"))?
        .trim()
        .to_owned())
}

fn cpu_model() -> Result<String> {
    let info = read("/proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Ok(model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, name)| name.trim().to_owned(),
    ))
}

/// Those that the kernel says are mitigated; what does not affect the processor is left out.
fn mitigations() -> Result<BTreeMap<String, String>> {
    const FOLDER: &str = "/sys/devices/system/cpu/vulnerabilities";
    let mut found = BTreeMap::new();
    // Absent on kernels and architectures that do not report any.
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return Ok(found);
    };
    for entry in entries {
        let entry = entry?;
        let state = fs::read_to_string(entry.path())?;
        if let Some(mitigation) = state.trim().strip_prefix("Mitigation: ") {
            found.insert(
                entry.file_name().to_string_lossy().into_owned(),
                mitigation.to_owned(),
            );
        }
    }
    Ok(found)
}

/// The load averages over 1, 5 and 15 minutes at this moment.
pub(crate) fn load() -> Result<[f64; 3]> {
    let text = read("/proc/loadavg")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || {
        numbers
            .next()
            .context("/proc/loadavg is short")?
            .context("/proc/loadavg")
    };
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_does_not_name_the_machine() {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let json = serde_json::to_string(&Environment::read().unwrap()).unwrap();
        assert!(!json.contains(&format!("\"{}\"", name.trim())), "{json}");
    }
}
