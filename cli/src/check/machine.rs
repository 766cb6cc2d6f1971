//! Judgement: each fact against what Tieline needs.

use std::{fs, path::Path};

use super::{
    Finding,
    facts::{self, Version},
};
use crate::daemon::bpffs_is_mounted;

/// The oldest kernel that the programs are tested on.
pub(crate) const OLDEST: Version = Version(5, 15);

/// The release, and whether it is new enough.
pub(crate) fn kernel() -> Finding {
    const NAME: &str = "kernel";
    let release = match facts::kernel_release() {
        Ok(release) => release,
        Err(error) => return Finding::fail(NAME, format!("uname: {error}"), "run on Linux 5.15 or later"),
    };
    match facts::version(&release) {
        Some(version) if version >= OLDEST => Finding::ok(NAME, format!("Linux {release}")),
        Some(_) => Finding::fail(
            NAME,
            format!("Linux {release}"),
            "upgrade to Linux 5.15 or later; 6.6 has tcx",
        ),
        None => Finding::warn(
            NAME,
            format!("Linux {release}"),
            "a release without numbers: make sure it is 5.15 or later",
        ),
    }
}

/// Rights of this process.
pub(crate) fn capabilities() -> Finding {
    const NAME: &str = "capabilities";
    match facts::missing_capabilities() {
        Ok(missing) if missing.is_empty() => {
            let names = facts::NEEDED.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            Finding::ok(NAME, names.join(", "))
        }
        Ok(missing) => Finding::fail(
            NAME,
            format!("without {}", missing.join(", ")),
            "run as root, or with AmbientCapabilities= as in deploy/systemd",
        ),
        Err(error) => Finding::warn(NAME, format!("cannot read them: {error}"), "mount /proc"),
    }
}

/// Type information of the kernel.
pub(crate) fn btf() -> Finding {
    const NAME: &str = "BTF";
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    match fs::metadata(PATH) {
        Ok(file) => Finding::ok(NAME, format!("{PATH}, {} KiB", file.len() / 1024)),
        Err(error) => Finding::warn(
            NAME,
            format!("{PATH}: {error}"),
            "a kernel with CONFIG_DEBUG_INFO_BTF=y lets maps and programs show their types in bpftool",
        ),
    }
}

/// The compiler in the kernel: without it every packet costs several times as much.
pub(crate) fn jit() -> Finding {
    const NAME: &str = "JIT";
    const PATH: &str = "/proc/sys/net/core/bpf_jit_enable";
    match facts::line_of(PATH).as_deref() {
        Ok("1") => Finding::ok(NAME, "on"),
        Ok("2") => Finding::warn(
            NAME,
            "on, with dumps to the log",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Ok("0") => Finding::warn(
            NAME,
            "off: packets cost several times as much",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Ok(other) => Finding::warn(
            NAME,
            format!("{PATH} is {other}"),
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Err(error) => Finding::warn(
            NAME,
            format!("{PATH}: {error}"),
            "ask in the host's network namespace",
        ),
    }
}

/// A place for pins.
pub(crate) fn bpffs(path: &Path) -> Finding {
    const NAME: &str = "bpffs";
    let shown = path.display();
    match bpffs_is_mounted(path) {
        Ok(true) => Finding::ok(NAME, format!("mounted at {shown}")),
        Ok(false) => Finding::fail(
            NAME,
            format!("not mounted at {shown}"),
            format!("`mount -t bpf bpf {shown}`, or `tieline up --mount-bpffs`"),
        ),
        Err(error) => Finding::fail(
            NAME,
            format!("{shown}: {error}"),
            "choose another folder with --bpffs",
        ),
    }
}

/// Whose memory maps are charged to.
pub(crate) fn memlock() -> Finding {
    const NAME: &str = "memlock";
    let version = facts::kernel_release()
        .ok()
        .and_then(|release| facts::version(&release));
    if version.is_some_and(|version| version >= Version(5, 11)) {
        Finding::ok(NAME, "no limit: this kernel charges maps to the memory cgroup")
    } else {
        Finding::warn(
            NAME,
            "kernels before 5.11 charge maps to RLIMIT_MEMLOCK",
            "`ulimit -l unlimited`",
        )
    }
}

/// Where the agent finds a caller's cgroup.
pub(crate) fn cgroup2() -> Finding {
    const NAME: &str = "cgroup2";
    match facts::cgroup2_mount() {
        Ok(Some(path)) => Finding::ok(NAME, format!("mounted at {}", path.display())),
        Ok(None) => Finding::warn(
            NAME,
            "not mounted: callers are known by process and namespace only",
            "`mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
        Err(error) => Finding::warn(NAME, format!("/proc/self/mountinfo: {error}"), "mount /proc"),
    }
}

/// A folder that has to be writable.
pub(crate) fn folder(name: &'static str, path: &Path, flag: &str) -> Finding {
    let shown = path.display();
    match facts::can_use(path) {
        Ok(()) => Finding::ok(name, format!("{shown} is writable")),
        Err(error) => Finding::fail(
            name,
            format!("{shown}: {error}"),
            format!("make it writable, or choose another with {flag}"),
        ),
    }
}
