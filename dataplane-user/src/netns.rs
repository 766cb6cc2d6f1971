//! Network namespaces: opening them, knowing them, and working inside.

use std::{
    collections::BTreeMap,
    fs::{self, File},
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
        let file = find(wanted).map_err(|detail| Obstacle::NetnsGone { path: path(), detail })?;
        if wanted.id == own {
            return Err(Obstacle::OwnNetns { path: path() });
        }
        Ok(Self(file))
    }
}

/// Opens the namespace that `wanted` names, or says what is there in its place. One that is named by a process goes on
/// when that ends, as long as another process is in it.
pub(crate) fn find(wanted: &NetnsRef) -> Result<File, String> {
    let detail = match open_as(&wanted.path, wanted.id) {
        Ok(file) => return Ok(file),
        Err(detail) => detail,
    };
    let others = fs::read_dir("/proc")
        .ok()
        .filter(|_| wanted.path.starts_with("/proc"));
    let processes = others.into_iter().flatten().filter_map(Result::ok);
    let mut found = processes
        .filter(is_process)
        .filter_map(|process| open_as(&process.path().join("ns/net"), wanted.id).ok());
    found.next().ok_or(detail)
}

/// Every namespace of the machine that has a name or a process, each once.
pub(crate) fn everywhere() -> Vec<NetnsRef> {
    let entries = |folder: &str| {
        fs::read_dir(folder)
            .ok()
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
    };
    let named = entries("/run/netns").map(|entry| entry.path());
    let of_processes = entries("/proc")
        .filter(is_process)
        .map(|entry| entry.path().join("ns/net"));
    let mut found = BTreeMap::new();
    for path in named.chain(of_processes) {
        if let Ok(metadata) = fs::metadata(&path) {
            let id = NetnsId {
                device: metadata.dev(),
                inode: metadata.ino(),
            };
            found.entry(id).or_insert(NetnsRef { path, id });
        }
    }
    found.into_values().collect()
}

fn is_process(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

fn open_as(path: &Path, wanted: NetnsId) -> Result<File, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let found = identity(&file).map_err(|error| error.to_string())?;
    if found == wanted {
        return Ok(file);
    }
    let NetnsId { device, inode } = wanted;
    Err(format!(
        "expected namespace {device}:{inode}, found {}:{}",
        found.device, found.inode
    ))
}

/// Runs `work` with a netlink socket inside each of the namespaces, once for all that is to be done in one, on one
/// thread that is never used for anything else. Results are in order; a namespace that is not there any more is
/// an obstacle. One namespace is open at a time.
pub(crate) fn visit<I: Sync, T: Send>(
    places: &[(&NetnsRef, I)],
    own: NetnsId,
    work: impl Fn(&mut Netlink, &[&I]) -> Vec<io::Result<T>> + Sync,
) -> Vec<Result<io::Result<T>, Obstacle>> {
    if places.is_empty() {
        return Vec::new();
    }
    let mut groups: BTreeMap<NetnsId, Vec<usize>> = BTreeMap::new();
    for (position, (netns, _)) in places.iter().enumerate() {
        groups.entry(netns.id).or_default().push(position);
    }
    let all = || {
        let visited = groups.values().flat_map(|group| {
            let members: Vec<_> = group
                .iter()
                .filter_map(|position| places.get(*position))
                .collect();
            group.iter().copied().zip(visit_one(&members, own, &work))
        });
        let mut visited: Vec<_> = visited.collect();
        visited.sort_unstable_by_key(|(position, _)| *position);
        visited.into_iter().map(|(_, result)| result).collect()
    };
    std::thread::scope(|scope| match scope.spawn(all).join() {
        Ok(results) => results,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// All that is to be done in one namespace, which may have several paths.
fn visit_one<I, T>(
    members: &[&(&NetnsRef, I)],
    own: NetnsId,
    work: impl Fn(&mut Netlink, &[&I]) -> Vec<io::Result<T>>,
) -> Vec<Result<io::Result<T>, Obstacle>> {
    let mut paths: BTreeMap<&Path, Result<(), Obstacle>> = BTreeMap::new();
    let mut inside = None;
    for (netns, _) in members {
        paths.entry(&netns.path).or_insert_with(|| {
            let netns = Netns::open(netns, own)?;
            inside.get_or_insert_with(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                Netlink::open()
            });
            Ok(())
        });
    }
    let found = |netns: &NetnsRef| paths.get(netns.path.as_path()).cloned().unwrap_or(Ok(()));
    let items: Vec<&I> = members
        .iter()
        .filter(|(netns, _)| found(netns).is_ok())
        .map(|(_, item)| item)
        .collect();
    let mut done = match inside {
        Some(Ok(mut netlink)) => work(&mut netlink, &items),
        Some(Err(error)) => all_failed(&error, items.len()),
        None => Vec::new(),
    }
    .into_iter();
    let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    members
        .iter()
        .map(|(netns, _)| found(netns).map(|()| done.next().unwrap_or_else(missing)))
        .collect()
}

/// One error for many.
pub(crate) fn all_failed<T>(error: &io::Error, count: usize) -> Vec<io::Result<T>> {
    let copy = || match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    };
    std::iter::repeat_with(|| Err(copy())).take(count).collect()
}
