//! Who is at the other end of a connection, as the kernel says.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

use super::super::error::CallError;
use crate::desired::NetnsId;

/// The process that opened a connection.
///
/// The number of a process can be given to another one when it ends. So its folder in `/proc` is opened once and
/// held: what is read through it is about that process or fails, never about a later one with the same number.
/// On Linux 6.5 on, the socket's own handle of the process (`SO_PEERPIDFD`) proves that the folder is the right
/// one; below, the process must run as the user that the socket names, and the time between connecting and accepting
/// is the only gap.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
    folder: File,
}

impl Peer {
    /// Asks the kernel about the process that opened `stream`.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, CallError> {
        let unknown = |what: &str, error: io::Error| CallError::UnknownCaller(format!("{what}: {error}"));
        let handle = peer_handle(stream);
        let credentials = stream
            .peer_cred()
            .map_err(|error| unknown("no peer credentials", error))?;
        let (uid, pid) = (credentials.uid(), credentials.pid().unwrap_or(0));
        let Ok(pid @ 1..) = u32::try_from(pid) else {
            return Err(CallError::UnknownCaller(
                "it is not in the agent's pid namespace".to_owned(),
            ));
        };
        let folder = open_folder(pid).map_err(|error| unknown("its process has ended", error))?;
        let peer = Self { uid, pid, folder };
        let same = match handle {
            Some(handle) => still_means(&handle, pid),
            None => fs::read_to_string(peer.path("status")).map(|text| runs_as(&text, uid)),
        };
        match same {
            Ok(true) => Ok(peer),
            Ok(false) => Err(CallError::UnknownCaller("its process has ended".to_owned())),
            Err(error) => Err(unknown("its process cannot be looked at", error)),
        }
    }

    /// The process with this number at this moment, which somebody names.
    pub(crate) fn of_process(pid: u32) -> Result<Self, CallError> {
        let folder = open_folder(pid).map_err(|error| gone(&error))?;
        let mut peer = Self { uid: 0, pid, folder };
        let status = fs::read_to_string(peer.path("status")).map_err(|error| gone(&error))?;
        let uid = effective_uid(&status);
        peer.uid = uid.ok_or_else(|| CallError::UnknownCaller("its process has ended".to_owned()))?;
        Ok(peer)
    }

    /// The network namespace it is in at this moment.
    pub(crate) fn netns(&self) -> Result<NetnsId, CallError> {
        let (device, inode) = identity(&self.path("ns/net")).map_err(|error| gone(&error))?;
        Ok(NetnsId { device, inode })
    }

    /// Its path in the cgroup2 hierarchy; empty when it is in none.
    pub(crate) fn cgroup(&self) -> Result<String, CallError> {
        let text = fs::read_to_string(self.path("cgroup")).map_err(|error| gone(&error))?;
        Ok(unified_cgroup(&text).to_owned())
    }

    /// Whether it may act for other workloads: root, in the agent's own user and pid namespaces. Root of a
    /// container is not.
    pub(crate) fn is_operator(&self) -> Result<bool, CallError> {
        if self.uid != 0 {
            return Ok(false);
        }
        let theirs = BOUNDS.map(|namespace| identity(&self.path(namespace)));
        let ours = OWN_BOUNDS
            .get_or_init(|| BOUNDS.map(|namespace| identity(&Path::new("/proc/self").join(namespace)).ok()));
        for (theirs, ours) in theirs.into_iter().zip(ours) {
            let theirs = theirs.map_err(|error| gone(&error))?;
            if *ours != Some(theirs) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}

/// The namespaces that a process shares with the agent if nothing is between them.
const BOUNDS: [&str; 2] = ["ns/user", "ns/pid"];
/// The agent's own: a process keeps them for life.
static OWN_BOUNDS: OnceLock<[Option<(u64, u64)>; 2]> = OnceLock::new();

/// Device and inode number of the namespace that a file of `/proc` stands for.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn gone(error: &io::Error) -> CallError {
    CallError::UnknownCaller(format!("its process cannot be looked at: {error}"))
}

fn open_folder(pid: u32) -> io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_CLOEXEC)
        .open(format!("/proc/{pid}"))
}

/// The socket's handle of the process at its other end; `None` on kernels without it.
fn peer_handle(stream: &UnixStream) -> Option<OwnedFd> {
    getsockopt(&stream.as_fd(), sockopt::PeerPidfd).ok()
}

/// Whether `handle` is that of a living process with the number `pid`.
fn still_means(handle: &OwnedFd, pid: u32) -> io::Result<bool> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
    Ok(handle_pid(&text) == Some(i64::from(pid)))
}

/// The number in a pidfd's fdinfo: -1 once the process has ended.
fn handle_pid(fdinfo: &str) -> Option<i64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|number| number.trim().parse().ok())
}

/// The effective user id in `/proc/PID/status`, the second of the four.
fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

/// Whether one of the user ids in `/proc/PID/status` is `uid`. (The owner of `/proc/PID` does not tell: it is root
/// for every process that has changed its user.)
fn runs_as(status: &str, uid: u32) -> bool {
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or("");
    ids.split_whitespace().any(|id| id.parse() == Ok(uid))
}

/// The `0::PATH` line of `/proc/PID/cgroup` (cgroups(7)).
fn unified_cgroup(text: &str) -> &str {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("")
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
