//! The folder of pins: where they are, who may use them, and what belongs to which interface.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use dataplane_common::{ABI_VERSION, names};
use nix::fcntl::{Flock, FlockArg};

use super::{LoadError, config::Constants};
use crate::desired::IfName;

/// `<bpffs>/tieline/v<ABI>`, locked.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    /// Held as long as the agent runs, and given up by the kernel however it ends.
    _lock: Flock<File>,
}

impl Pins {
    /// Makes the folders and takes the lock, which two agents cannot hold.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, LoadError> {
        let root = bpffs.join(names::PIN_ROOT).join(format!("v{ABI_VERSION}"));
        for folder in [names::PIN_MAPS, names::PIN_PROGRAMS, names::PIN_LINKS] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).map_err(LoadError::doing(format!("make {}", path.display())))?;
        }
        let folder = File::open(&root).map_err(LoadError::doing(format!("open {}", root.display())))?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { root, _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LoadError::SecondInstance { path: root }),
            Err((_, error)) => Err(LoadError::doing(format!("lock {}", root.display()))(error.into())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(names::PIN_MAPS).join(name)
    }

    /// The program, with the constants that it was loaded with: they are not part of its tag.
    pub(crate) fn program(&self, constants: &Constants) -> PathBuf {
        let Constants {
            event_sample,
            probe_cookie,
        } = constants;
        self.programs().join(format!(
            "{}-sample{event_sample}-probe{probe_cookie:x}",
            names::PROGRAM_WIRE_INGRESS
        ))
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join(names::PIN_PROGRAMS)
    }

    pub(crate) fn links(&self) -> LinkPins {
        LinkPins {
            folder: self.root.join(names::PIN_LINKS),
        }
    }
}

/// One file per interface that our program is attached to.
#[derive(Clone, Debug)]
pub(crate) struct LinkPins {
    folder: PathBuf,
}

impl LinkPins {
    /// The file of an interface. A bpffs refuses names with a dot, which interface names may have.
    pub(crate) fn path(&self, interface: &IfName) -> PathBuf {
        self.folder
            .join(interface.as_str().replace('%', "%25").replace('.', "%2e"))
    }

    /// The interfaces that have a file.
    pub(crate) fn all(&self) -> io::Result<Vec<IfName>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?
                .file_name()
                .to_string_lossy()
                .replace("%2e", ".")
                .replace("%25", "%");
            found.extend(IfName::new(&name));
        }
        Ok(found)
    }

    /// Whether an interface has a file.
    pub(crate) fn exists(&self, interface: &IfName) -> bool {
        self.path(interface).symlink_metadata().is_ok()
    }

    /// Whether the file of an interface is a record, not a link.
    pub(crate) fn is_symlink(&self, interface: &IfName) -> bool {
        self.path(interface)
            .symlink_metadata()
            .is_ok_and(|found| found.is_symlink())
    }

    /// Removes the file of an interface; one that is not there is removed.
    pub(crate) fn remove(&self, interface: &IfName) -> io::Result<()> {
        remove(&self.path(interface))
    }
}

/// Removes a file; one that is not there is removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
