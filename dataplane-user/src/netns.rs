//! Network namespaces: opening them, knowing them, and working inside.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use nix::sched::{CloneFlags, setns};

use crate::{
    desired::{NetnsId, NetnsRef},
    netlink::socket::Netlink,
    observed::Obstacle,
};

/// An open namespace. As long as it is open the namespace lives, so it is held for one operation only.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The identity of the namespace that a file stands for.
fn identity(file: &File) -> io::Result<NetnsId> {
    let metadata = file.metadata()?;
    Ok(NetnsId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// The calling thread's namespace.
pub fn current() -> io::Result<NetnsRef> {
    let path = Path::new("/proc/thread-self/ns/net");
    Ok(NetnsRef {
        path: path.to_owned(),
        id: identity(&File::open(path)?)?,
    })
}

impl Netns {
    /// Opens the namespace that `wanted` names, if it is still that one and not the agent's `own`.
    pub(crate) fn open(wanted: &NetnsRef, own: NetnsId) -> Result<Self, Obstacle> {
        let path = || wanted.path.display().to_string();
        let gone = |detail: String| Obstacle::NetnsGone { path: path(), detail };
        let file = File::open(&wanted.path).map_err(|error| gone(error.to_string()))?;
        let found = identity(&file).map_err(|error| gone(error.to_string()))?;
        if found != wanted.id {
            let NetnsId { device, inode } = wanted.id;
            return Err(gone(format!(
                "expected namespace {device}:{inode}, found {}:{}",
                found.device, found.inode
            )));
        }
        if found == own {
            return Err(Obstacle::OwnNetns { path: path() });
        }
        Ok(Self(file))
    }
}

/// Runs `work` with a netlink socket inside each of the namespaces, on one thread that is never used for anything
/// else; results are in order.
pub(crate) fn visit<I: Sync, T: Send>(
    places: &[(&Netns, I)],
    work: impl Fn(&mut Netlink, &I) -> io::Result<T> + Sync,
) -> Vec<io::Result<T>> {
    if places.is_empty() {
        return Vec::new();
    }
    let all = || {
        // Several places of one namespace share a socket.
        let mut open: BTreeMap<NetnsId, Netlink> = BTreeMap::new();
        let one = |(netns, item): &(&Netns, I)| {
            let netlink = match open.entry(identity(&netns.0)?) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    setns(netns, CloneFlags::CLONE_NEWNET)?;
                    entry.insert(Netlink::open()?)
                }
            };
            work(netlink, item)
        };
        places.iter().map(one).collect()
    };
    std::thread::scope(|scope| match scope.spawn(all).join() {
        Ok(results) => results,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
