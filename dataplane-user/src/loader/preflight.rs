//! Whether this machine can run the datapath, asked before anything is made.

use std::path::Path;

use nix::sys::{statfs::statfs, utsname::uname};

use super::{Backend, LoadError};

/// `BPF_FS_MAGIC`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (5, 15);
/// The first kernel with tcx.
const TCX_SINCE: (u32, u32) = (6, 6);

/// `CAP_*` numbers.
const CAP_NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const CAP_SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

/// The kernel's release and what to attach with: `Auto` stays only where the kernel has tcx.
pub(super) fn check(bpffs: &Path, backend: Backend) -> Result<(String, Backend), LoadError> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(LoadError::doing("read /proc/self/status"))?;
    let missing = missing_rights(effective(&status));
    if !missing.is_empty() {
        return Err(LoadError::Rights {
            missing: missing.join(" and "),
        });
    }
    let name = uname().map_err(|error| LoadError::doing("ask for the kernel's release")(error.into()))?;
    let release = name.release().to_string_lossy().into_owned();
    let version = version(&release);
    if version < OLDEST {
        return Err(LoadError::OldKernel { release });
    }
    let backend = match backend {
        Backend::Auto if version < TCX_SINCE => Backend::Clsact,
        Backend::Tcx if version < TCX_SINCE => return Err(LoadError::NoTcx { release }),
        chosen => chosen,
    };
    let is_bpffs = |fs: nix::sys::statfs::Statfs| fs.filesystem_type().0.cast_unsigned() == BPF_FS_MAGIC;
    if !statfs(bpffs).is_ok_and(is_bpffs) {
        return Err(LoadError::NoBpffs {
            path: bpffs.to_owned(),
        });
    }
    Ok((release, backend))
}

/// The effective capability set in `/proc/PID/status`.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// Entering workloads' namespaces needs `CAP_SYS_ADMIN`, which implies `CAP_BPF`.
fn missing_rights(effective: u64) -> Vec<&'static str> {
    let has = |(bit, _): (u32, &str)| effective & (1 << bit) != 0;
    let needed = [CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF];
    let missing = needed.into_iter().filter(|cap| !has(*cap));
    missing
        .filter(|cap| *cap != CAP_BPF || !has(CAP_SYS_ADMIN))
        .map(|(_, name)| name)
        .collect()
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        for (release, expected) in [
            ("6.18.44", (6, 18)),
            ("6.1.0-18-amd64", (6, 1)),
            ("5.15.0-1051-aws", (5, 15)),
            ("6.6-rc3+", (6, 6)),
            ("weird", (0, 0)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn a_process_without_rights_is_told_which() {
        assert_eq!(missing_rights(0), ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_BPF"]);
        assert_eq!(missing_rights(1 << 39), ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        assert_eq!(missing_rights(1 << 21 | 1 << 12), Vec::<&str>::new());
        assert_eq!(
            effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            0x1ff_ffff_ffff
        );
    }
}
