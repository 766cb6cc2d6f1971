//! Name servers of workloads' namespaces: `/etc/netns/NAME/resolv.conf`, which `ip netns exec NAME` and everything that
//! follows its convention shows as `/etc/resolv.conf`.
//!
//! Only a namespace with a name has such a file. One that somebody else wrote is never touched, and no other file is,
//! the machine's own least of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    desired::{Change, Desired, End, NameServers, NetnsRef, Wire, WireId},
    outcome::{FailureKind, WireFailure},
    ownership::NodeScope,
};

/// Where `ip netns` looks.
pub(crate) const FOLDER: &str = "/etc/netns";
/// Where namespaces with names are.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
const FILE: &str = "resolv.conf";
const DRAFT: &str = ".resolv.conf.tieline";
/// The most of a file that is read: more is nobody's `resolv.conf`.
const MAX_BYTES: u64 = 64 * 1024;
/// Which request field asks for this, in NSM's spelling.
const FIELD: &str = "context.extra_context[tieline.io/dns]";

/// Keeps the files as planned.
#[derive(Debug)]
pub(crate) struct Resolvers {
    folder: PathBuf,
    mark: String,
    /// By name of the namespace.
    wanted: BTreeMap<String, BTreeMap<WireId, Vec<NameServers>>>,
    by_wire: BTreeMap<WireId, String>,
    /// Wires whose namespace has no name.
    unnamed: BTreeMap<WireId, PathBuf>,
    /// Names whose files may not be as planned.
    stale: BTreeSet<String>,
    /// Whether files may be left of wires that are not known.
    strays: bool,
}

/// What is at a file's place.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours { text: String, folder: bool },
    Foreign,
}

impl Resolvers {
    /// Files in `folder` that carry the mark of `scope`.
    pub(crate) fn new(folder: &Path, scope: &NodeScope) -> Self {
        Self {
            folder: folder.to_owned(),
            mark: format!("# tieline/1/{scope} made this "),
            wanted: BTreeMap::new(),
            by_wire: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            stale: BTreeSet::new(),
            strays: false,
        }
    }

    /// Notes what a whole plan wants.
    pub(crate) fn plan(&mut self, desired: &Desired) {
        let known: Vec<WireId> = self.by_wire.keys().cloned().collect();
        known.iter().for_each(|id| self.forget(id));
        self.unnamed.clear();
        desired.wires.values().for_each(|wire| self.want(wire));
        self.look_again();
    }

    /// Notes what a change wants.
    pub(crate) fn change(&mut self, change: &Change) {
        change.remove.iter().for_each(|id| self.forget(id));
        for wire in &change.upsert {
            self.forget(&wire.id);
            self.want(wire);
        }
    }

    /// Everything may be different from what it was.
    pub(crate) fn look_again(&mut self) {
        self.stale.extend(self.wanted.keys().cloned());
        self.strays = true;
    }

    fn want(&mut self, wire: &Wire) {
        let End::Veth(end) = &wire.client else { return };
        if end.name_servers.is_empty() {
            return;
        }
        let Some(name) = name_of(&end.netns) else {
            self.unnamed.insert(wire.id.clone(), end.netns.path.clone());
            return;
        };
        self.stale.insert(name.clone());
        self.by_wire.insert(wire.id.clone(), name.clone());
        let wires = self.wanted.entry(name).or_default();
        wires.insert(wire.id.clone(), end.name_servers.clone());
    }

    fn forget(&mut self, id: &WireId) {
        self.unnamed.remove(id);
        let Some(name) = self.by_wire.remove(id) else {
            return;
        };
        if let Some(wires) = self.wanted.get_mut(&name) {
            wires.remove(id);
            if wires.is_empty() {
                self.wanted.remove(&name);
            }
        }
        self.stale.insert(name);
    }

    /// Makes the files as planned; the wires whose name servers cannot be used. What failed is tried again when
    /// something of its namespace changes, and after [`Self::look_again`].
    pub(crate) fn settle(&mut self) -> Vec<WireFailure> {
        if std::mem::take(&mut self.strays) {
            let strays = self.strays_in_folder();
            self.stale.extend(strays);
        }
        let mut failures = Vec::new();
        for name in std::mem::take(&mut self.stale) {
            let result = match self.wanted.get(&name) {
                Some(wires) => self.write(&name, wires),
                None => self.remove(&name).map_err(Failure::Io),
            };
            let wires = self.wanted.get(&name).into_iter().flat_map(BTreeMap::keys);
            if let Err(failure) = result {
                let path = self.file(&name);
                failures.extend(wires.map(|wire| failure.of(wire, &path)));
            }
        }
        let unnamed = self.unnamed.iter();
        failures.extend(unnamed.map(|(wire, path)| Failure::Unnamed.of(wire, path)));
        failures
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name).join(FILE)
    }

    fn find(&self, name: &str) -> io::Result<Found> {
        let path = self.file(name);
        let is_link = |path: &Path| fs::symlink_metadata(path).map(|found| found.is_symlink());
        match is_link(&self.folder.join(name)) {
            Ok(true) => return Ok(Found::Foreign),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            other => drop(other?),
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let mut text = Vec::new();
        match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Found::Foreign),
            Err(error) => return Err(error),
            Ok(file) if !file.metadata()?.is_file() => return Ok(Found::Foreign),
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text)?,
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let first = text.lines().next().unwrap_or_default();
        Ok(match first.strip_prefix(&self.mark) {
            Some("file") => Found::Ours { text, folder: false },
            Some("folder") => Found::Ours { text, folder: true },
            _ => Found::Foreign,
        })
    }

    fn write(&self, name: &str, wires: &BTreeMap<WireId, Vec<NameServers>>) -> Result<(), Failure> {
        match self.find(name)? {
            Found::Foreign => Err(Failure::Foreign),
            Found::Nothing => self.create(name, wires),
            Found::Ours { text, folder } => {
                let wanted = self.text(folder, wires);
                if wanted != text {
                    // In place: whoever has the file mounted sees the change.
                    let mut file = OpenOptions::new()
                        .write(true)
                        .custom_flags(libc::O_NOFOLLOW)
                        .open(self.file(name))?;
                    file.write_all(wanted.as_bytes())?;
                    file.set_len(u64::try_from(wanted.len()).unwrap_or(u64::MAX))?;
                }
                Ok(())
            }
        }
    }

    /// Makes a file that appears as a whole, and in place of no other.
    fn create(&self, name: &str, wires: &BTreeMap<WireId, Vec<NameServers>>) -> Result<(), Failure> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&self.folder)?;
        let made = match DirBuilder::new().mode(0o755).create(&folder) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error.into()),
        };
        let draft = folder.join(DRAFT);
        let _ = fs::remove_file(&draft);
        let mut file = File::create_new(&draft)?;
        let written = file.write_all(self.text(made, wires).as_bytes());
        let linked = written.and_then(|()| fs::hard_link(&draft, self.file(name)));
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Foreign),
            linked => Ok(linked?),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let Found::Ours { folder, .. } = self.find(name)? else {
            return Ok(());
        };
        fs::remove_file(self.file(name))?;
        if !folder {
            return Ok(());
        }
        match fs::remove_dir(self.folder.join(name)) {
            // Somebody else has put something into it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        }
    }

    fn text(&self, folder: bool, wires: &BTreeMap<WireId, Vec<NameServers>>) -> String {
        let sets = || wires.values().flatten();
        let mut text = format!("{}{}\n", self.mark, if folder { "folder" } else { "file" });
        let mut domains: Vec<&str> = Vec::new();
        for domain in sets().flat_map(|set| &set.search_domains) {
            if !domains.contains(&domain.as_str()) {
                domains.push(domain);
            }
        }
        if !domains.is_empty() {
            // Writing into a `String` cannot fail.
            let _ = writeln!(text, "search {}", domains.join(" "));
        }
        let mut servers = BTreeSet::new();
        for server in sets().flat_map(|set| &set.addresses) {
            if servers.insert(server) {
                let _ = writeln!(text, "nameserver {server}");
            }
        }
        text
    }

    /// Namespaces whose file is ours.
    fn strays_in_folder(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).ok().into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| matches!(self.find(name), Ok(Found::Ours { .. })))
            .collect()
    }
}

/// Why a namespace does not use its name servers.
#[derive(Debug)]
enum Failure {
    Foreign,
    Unnamed,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    fn of(&self, wire: &WireId, path: &Path) -> WireFailure {
        let path = path.display();
        let (kind, message) = match self {
            Self::Foreign => (
                FailureKind::NameTaken,
                format!("{path} is not Tieline's: remove it, or ask without name servers"),
            ),
            Self::Unnamed => (
                FailureKind::NetnsGone,
                format!(
                    "namespace {path} has no name, and so no resolv.conf of its own: use one below /run/netns, or ask \
                     without name servers"
                ),
            ),
            Self::Io(error) => (FailureKind::Kernel, format!("cannot keep {path}: {error}")),
        };
        WireFailure {
            wire: wire.clone(),
            kind,
            message,
            field: Some((FIELD.to_owned(), FILE.to_owned())),
            workload: None,
        }
    }
}

/// The name of a namespace, if it has one: that by which it was named, or the first one that it goes by.
fn name_of(netns: &NetnsRef) -> Option<String> {
    let folder = netns.path.parent()?.to_str()?;
    if NAMED.contains(&folder) {
        return Some(netns.path.file_name()?.to_str()?.to_owned());
    }
    let entries = fs::read_dir(NAMED[0]).ok()?.filter_map(Result::ok);
    let same = |entry: &fs::DirEntry| {
        let found = fs::metadata(entry.path());
        found.is_ok_and(|found| (found.dev(), found.ino()) == (netns.id.device, netns.id.inode))
    };
    let names = entries
        .filter(same)
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{convert, testing},
        desired::Payload,
    };

    const NAME: &str = "tl-resolved";

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tl-resolvers-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn wire(n: u8, path: &str, servers: &[&str], domains: &[&str]) -> Wire {
        let mut wire = convert::wire(testing::wire(n)).unwrap();
        assert_eq!(wire.payload, Payload::Ip);
        let End::Veth(end) = &mut wire.client else {
            panic!()
        };
        end.netns.path = path.into();
        end.name_servers = vec![NameServers {
            addresses: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search_domains: domains.iter().map(ToString::to_string).collect(),
        }];
        wire
    }

    fn upsert(wires: Vec<Wire>) -> Change {
        Change {
            generation: 1,
            upsert: wires,
            remove: Vec::new(),
        }
    }

    fn remove(wire: &Wire) -> Change {
        Change {
            generation: 2,
            upsert: Vec::new(),
            remove: vec![wire.id.clone()],
        }
    }

    fn resolvers(folder: &Path) -> Resolvers {
        Resolvers::new(folder, &NodeScope::new("tl-node"))
    }

    #[test]
    fn a_file_has_what_all_wires_bring_and_goes_with_the_last() {
        let folder = folder("all");
        let path = folder.join(NAME).join(FILE);
        let netns = format!("/run/netns/{NAME}");
        let mut resolvers = resolvers(&folder);
        let one = wire(1, &netns, &["10.0.0.53"], &["corp.example"]);
        let two = wire(2, &netns, &["10.0.0.53", "fd00::53"], &["lab.example"]);
        resolvers.change(&upsert(vec![one.clone()]));
        assert_eq!(resolvers.settle(), []);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# tieline/1/tl-node made this folder\nsearch corp.example\nnameserver 10.0.0.53\n"
        );
        let mounted = File::open(&path).unwrap();
        resolvers.change(&upsert(vec![two.clone()]));
        assert_eq!(resolvers.settle(), []);
        let mut seen = String::new();
        { &mounted }.read_to_string(&mut seen).unwrap();
        assert!(
            seen.ends_with("search corp.example lab.example\nnameserver 10.0.0.53\nnameserver fd00::53\n"),
            "the same file was changed: {seen}"
        );
        resolvers.change(&remove(&one));
        assert_eq!(resolvers.settle(), []);
        assert!(!fs::read_to_string(&path).unwrap().contains("corp"));
        resolvers.change(&remove(&two));
        assert_eq!(resolvers.settle(), []);
        assert!(!folder.join(NAME).exists());
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let folder = folder("foreign");
        let mut resolvers = resolvers(&folder);
        let [text, link, empty] = ["tl-text", "tl-link", "tl-empty"];
        for name in [text, link, empty] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        fs::write(folder.join(text).join(FILE), "nameserver 192.0.2.1\n").unwrap();
        std::os::unix::fs::symlink("../elsewhere", folder.join(link).join(FILE)).unwrap();
        let wires: Vec<Wire> = [text, link, empty]
            .iter()
            .zip(1..)
            .map(|(name, n)| wire(n, &format!("/run/netns/{name}"), &["10.0.0.53"], &[]))
            .collect();
        resolvers.change(&upsert(wires.clone()));
        let failures = resolvers.settle();
        let failed: Vec<&WireId> = failures.iter().map(|failure| &failure.wire).collect();
        assert_eq!(failed, [&wires[1].id, &wires[0].id]);
        for failure in &failures {
            assert_eq!(failure.kind, FailureKind::NameTaken);
            assert_eq!(failure.field.as_ref().unwrap().0, FIELD);
        }
        for wire in &wires {
            resolvers.change(&remove(wire));
        }
        assert_eq!(resolvers.settle(), []);
        assert_eq!(
            fs::read_to_string(folder.join(text).join(FILE)).unwrap(),
            "nameserver 192.0.2.1\n"
        );
        assert!(folder.join(link).join(FILE).is_symlink());
        assert!(!folder.join("elsewhere").exists());
        assert_eq!(
            fs::read_dir(folder.join(empty)).unwrap().count(),
            0,
            "the folder was there before"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_namespace_without_a_name_has_none() {
        let folder = folder("unnamed");
        let mut resolvers = resolvers(&folder);
        resolvers.change(&upsert(vec![wire(1, "/proc/7/ns/net", &["10.0.0.53"], &[])]));
        let failures = resolvers.settle();
        assert_eq!(failures.len(), 1);
        assert!(
            failures[0].message.contains("/run/netns"),
            "{}",
            failures[0].message
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn an_agent_that_starts_takes_away_what_its_plan_does_not_want() {
        let folder = folder("strays");
        let mut before = resolvers(&folder);
        let kept = wire(1, "/run/netns/tl-kept", &["10.0.0.53"], &[]);
        let gone = wire(2, "/run/netns/tl-gone", &["10.0.0.53"], &[]);
        before.change(&upsert(vec![kept.clone(), gone]));
        assert_eq!(before.settle(), []);
        let mut other = Resolvers::new(&folder, &NodeScope::new("tl-other"));
        other.change(&upsert(vec![wire(3, "/run/netns/tl-other", &["10.0.0.53"], &[])]));
        assert_eq!(other.settle(), []);

        let mut after = resolvers(&folder);
        fs::write(
            folder.join("tl-kept").join(FILE),
            "# tieline/1/tl-node made this folder\n",
        )
        .unwrap();
        after.plan(&Desired {
            generation: 1,
            wires: [(kept.id.clone(), kept)].into(),
        });
        assert_eq!(after.settle(), []);
        let text = fs::read_to_string(folder.join("tl-kept").join(FILE)).unwrap();
        assert!(text.contains("10.0.0.53"), "what was half written is whole again");
        assert!(!folder.join("tl-gone").exists());
        assert!(folder.join("tl-other").join(FILE).exists(), "another node's");
        fs::remove_dir_all(folder).unwrap();
    }
}
