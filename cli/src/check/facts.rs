//! What the machine says about itself: readers of `/proc` and `/sys`, without judgement.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    sys::utsname::uname,
    unistd::{AccessFlags, access},
};

/// `major.minor` of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub u32, pub u32);

/// The running kernel's release, as `uname -r` prints it.
pub(crate) fn kernel_release() -> Result<String, io::Error> {
    Ok(uname()?.release().to_string_lossy().into_owned())
}

/// Major and minor number of a release such as `6.12.41+deb13-amd64`.
pub(crate) fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some(Version(major, minor)),
        _ => None,
    }
}

/// What an agent needs, with the numbers of `linux/capability.h`: other network namespaces, interfaces, programs.
pub(crate) const NEEDED: &[(&str, u32)] = &[
    ("CAP_SYS_ADMIN", CAP_SYS_ADMIN),
    ("CAP_NET_ADMIN", 12),
    ("CAP_BPF", CAP_BPF),
];

const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The needed capabilities that this process lacks.
pub(crate) fn missing_capabilities() -> Result<Vec<&'static str>, io::Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = effective_set(&status)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status"))?;
    Ok(missing_in(effective))
}

fn missing_in(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & (1 << number) != 0;
    // CAP_SYS_ADMIN includes what CAP_BPF was split off from it.
    let granted = |number: u32| has(number) || (number == CAP_BPF && has(CAP_SYS_ADMIN));
    NEEDED
        .iter()
        .filter(|(_, number)| !granted(*number))
        .map(|(name, _)| *name)
        .collect()
}

fn effective_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Where the unified control group hierarchy is mounted.
pub(crate) fn cgroup2_mount() -> Result<Option<PathBuf>, io::Error> {
    Ok(mount_of_type(
        &fs::read_to_string("/proc/self/mountinfo")?,
        "cgroup2",
    ))
}

/// Mount point of the first file system of this type; `man 5 proc` describes the fields.
fn mount_of_type(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == kind).then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Whether this process can write in `folder`, or make it.
pub(crate) fn can_use(folder: &Path) -> Result<(), io::Error> {
    let existing = folder
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(existing, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// A file of one line, without its end.
pub(crate) fn line_of(path: &str) -> Result<String, io::Error> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        for (release, expected) in [
            ("6.12.41+deb13-amd64", Some(Version(6, 12))),
            ("5.15.0-1052-aws", Some(Version(5, 15))),
            ("6.6-rc1", Some(Version(6, 6))),
            ("7.2", Some(Version(7, 2))),
            ("custom", None),
            ("6", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(
            Version(6, 6) > Version(6, 1) && Version(6, 1) > Version(5, 15) && Version(6, 12) > Version(6, 6)
        );
    }

    #[test]
    fn the_effective_set_is_read_from_the_status() {
        assert_eq!(
            effective_set("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective_set("Name:\tx\n"), None);
    }

    #[test]
    fn missing_rights_are_named() {
        assert_eq!(missing_in(0), ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_BPF"]);
        assert_eq!(missing_in(1 << 21 | 1 << 12), Vec::<&str>::new());
        assert_eq!(missing_in(1 << 39 | 1 << 12), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_of_type(mounts, "cgroup2"),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(mount_of_type(mounts, "bpf"), None);
    }

    #[test]
    fn a_folder_that_can_be_made_is_usable_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(can_use(&folder.path().join("a/b")).is_ok());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(can_use(&file.join("a")).is_err());
    }
}
