//! A bpffs mount of our own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::name::PREFIX;

const KERNEL_PINS: &[&str] = &["maps.debug", "progs.debug"];

/// A private bpffs in a temporary folder; unmounted on drop, which releases everything pinned in it.
#[derive(Debug)]
pub struct BpfFs {
    dir: TempDir,
}

impl BpfFs {
    /// Mounts one.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}bpffs-"))
            .tempdir()?;
        mount(
            Some("bpf"),
            dir.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| {
            format!(
                "mount bpffs on {}: this needs CAP_SYS_ADMIN",
                dir.path().display()
            )
        })?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Every pin in it, sorted, relative to its root.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut pins = pins_below(self.path())?;
        // The kernel puts its own iterators into every new mount.
        pins.retain(|pin| !KERNEL_PINS.iter().any(|own| pin == Path::new(own)));
        Ok(pins)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.dir.path(), MntFlags::MNT_DETACH) {
            eprintln!("bpffs on {} remains: {error}", self.dir.path().display());
        }
    }
}

/// Every file below `root`, sorted, relative to it; none if it does not exist.
pub(crate) fn pins_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("list {}", folder.display())),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_empty_and_goes_with_its_guard() {
        let bpffs = BpfFs::new().unwrap();
        assert!(bpffs.pins().unwrap().is_empty());
        fs::create_dir(bpffs.path().join("folder")).unwrap();
        let path = bpffs.path().to_owned();
        drop(bpffs);
        assert!(!path.exists());
        assert!(
            !fs::read_to_string("/proc/mounts")
                .unwrap()
                .contains(path.to_str().unwrap())
        );
    }
}
