//! Network namespaces, visible to `ip` and `nsenter` under `/run/netns`.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Net, Process, name::unique_name};

/// Where named namespaces are bind-mounted.
pub const NETNS_DIR: &str = "/run/netns";

/// A network namespace of our own, removed on drop. Its loopback interface is up.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes a namespace called `tl-LABEL-PID-N`.
    pub fn new(label: &str) -> Result<Self> {
        Self::named(&unique_name(label))
    }

    /// Makes a namespace with exactly this name, which must be free.
    pub fn named(name: &str) -> Result<Self> {
        prepare_dir().with_context(|| format!("prepare {NETNS_DIR}"))?;
        let path = Path::new(NETNS_DIR).join(name);
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        let file = thread::scope(|scope| scope.spawn(|| mount_fresh(&path)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })?;
        let netns = Self {
            name: name.to_owned(),
            file,
        };
        netns.run(|| Net::here()?.set_up("lo"))?;
        Ok(netns)
    }

    /// The name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/run/netns/NAME`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Device and inode number of the namespace file.
    pub fn id(&self) -> Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `work` on a thread inside this namespace and waits for it. Sockets opened there stay there, and
    /// processes started there begin there. A panic inside goes on outside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))?;
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Configures the namespace's interfaces.
    pub fn net<T: Send>(&self, work: impl FnOnce(&mut Net) -> Result<T> + Send) -> Result<T> {
        self.run(|| work(&mut Net::here()?))
    }

    /// Starts a program inside; it is killed by pid when the guard is dropped.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        self.run(move || Process::spawn(&mut command))
    }

    /// Sets a parameter below `/proc/sys/net`, named as there: `ipv6/conf/all/disable_ipv6`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display())))
    }

    /// Removes the namespace, telling whether that worked. Dropping does the same in silence.
    pub fn remove(self) -> Result<()> {
        remove(&self.path())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let path = self.path();
        if path.exists()
            && let Err(error) = remove(&path)
        {
            eprintln!("namespace {} remains: {error:#}", self.name);
        }
    }
}

/// Moves this thread into a fresh namespace and mounts that on `path`. The thread must end afterwards.
fn mount_fresh(path: &Path) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace: this needs CAP_SYS_ADMIN")?;
    let own = "/proc/thread-self/ns/net";
    mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mount on {}", path.display()))?;
    File::open(own).context("open the new namespace")
}

/// Makes the folder a shared mount point of its own, as `ip netns` does, so that mounts below it are seen, and
/// taken away, in every mount namespace alike.
fn prepare_dir() -> Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    let _lock = Flock::lock(File::open(NETNS_DIR)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    match mount(None::<&str>, NETNS_DIR, None::<&str>, shared, None::<&str>) {
        Ok(()) => Ok(()),
        Err(nix::Error::EINVAL) => {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, bind, None::<&str>)?;
            mount(None::<&str>, NETNS_DIR, None::<&str>, shared, None::<&str>)?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not a mount point: making it failed half-way.
        Ok(()) | Err(nix::Error::EINVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_apart_and_goes_with_its_guard() {
        let netns = NetNs::new("apart").unwrap();
        let path = netns.path();
        let names = netns
            .net(|net| Ok(net.links()?.into_iter().map(|l| l.name).collect::<Vec<_>>()))
            .unwrap();
        assert_eq!(names, ["lo"]);
        let inside = netns
            .run(|| Ok(fs::metadata("/proc/thread-self/ns/net")?.ino()))
            .unwrap();
        assert_eq!(inside, netns.id().unwrap().1);
        assert_ne!(inside, fs::metadata("/proc/self/ns/net").unwrap().ino());
        drop(netns);
        assert!(!path.exists());
    }

    #[test]
    fn removing_says_whether_it_worked_and_a_name_is_given_once() {
        let netns = NetNs::new("once").unwrap();
        assert!(NetNs::named(netns.name()).is_err());
        let path = netns.path();
        netns.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_program_runs_inside_and_dies_with_its_guard() {
        let netns = NetNs::new("proc").unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = netns.spawn(command).unwrap();
        let proc_dir = PathBuf::from(format!("/proc/{}", process.pid()));
        let inode = fs::metadata(proc_dir.join("ns/net")).unwrap().ino();
        assert_eq!(inode, netns.id().unwrap().1);
        drop(process);
        assert!(!proc_dir.exists());
    }
}
