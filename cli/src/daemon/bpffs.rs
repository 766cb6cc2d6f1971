//! The BPF file system that pins live in.

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::DaemonError;

/// Whether a BPF file system is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> Result<bool, io::Error> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Makes sure that there is one; mounts it if allowed to.
pub(crate) fn ensure(path: &Path, may_mount: bool) -> Result<(), DaemonError> {
    let unusable = |source| DaemonError::BpffsPath {
        path: path.to_owned(),
        source,
    };
    if may_mount {
        fs::create_dir_all(path).map_err(unusable)?;
    }
    match is_mounted(path) {
        Ok(true) => Ok(()),
        Ok(false) if may_mount => mount_at(path),
        Ok(false) => Err(DaemonError::NoBpffs {
            path: path.to_owned(),
        }),
        Err(source) => Err(unusable(source)),
    }
}

fn mount_at(path: &Path) -> Result<(), DaemonError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700")).map_err(|errno: Errno| {
        DaemonError::Mount {
            path: path.to_owned(),
            source: errno.into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_bpffs_is_refused_with_the_command_that_mounts_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mounted(folder.path()).unwrap());
        let error = ensure(folder.path(), false).unwrap_err().to_string();
        assert!(
            error.contains(&format!("mount -t bpf bpf {}", folder.path().display())),
            "{error}"
        );
        assert!(error.contains("--mount-bpffs"), "{error}");
    }

    #[test]
    fn a_missing_folder_is_refused_with_the_flag_that_names_it() {
        let error = ensure(Path::new("/nonexistent/bpf"), false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/bpf") && error.contains("--bpffs"),
            "{error}"
        );
    }
}
