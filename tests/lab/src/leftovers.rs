//! Proof that nothing remained.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{Net, NetNs, bpffs::pins_below, name, netns::NETNS_DIR, time::slow};

/// What to look at besides the named namespaces and child processes of this process.
#[derive(Default)]
pub struct Watch<'a> {
    /// Namespaces whose interfaces are compared.
    pub netns: Vec<&'a NetNs>,
    /// Folders whose files (pins) are compared.
    pub dirs: Vec<PathBuf>,
}

/// The objects that existed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<Object>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Namespace(String),
    Interface {
        netns: String,
        ifindex: u32,
        name: String,
    },
    File(PathBuf),
    Process {
        pid: u32,
        command: String,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Interface { netns, ifindex, name } => write!(f, "interface {name} ({ifindex}) in {netns}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Process { pid, command } => write!(f, "process {pid} ({command})"),
        }
    }
}

impl Leftovers {
    /// Notes what exists: named namespaces of this process, interfaces and files watched, our child processes.
    pub fn snapshot(watch: &Watch<'_>) -> Result<Self> {
        let mut objects = BTreeSet::new();
        for entry in fs::read_dir(NETNS_DIR).into_iter().flatten() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name::is_of_this_process(&name) {
                objects.insert(Object::Namespace(name));
            }
        }
        for netns in &watch.netns {
            for link in netns.net(Net::links)? {
                let netns = netns.name().to_owned();
                objects.insert(Object::Interface {
                    netns,
                    ifindex: link.ifindex,
                    name: link.name,
                });
            }
        }
        for dir in &watch.dirs {
            objects.extend(
                pins_below(dir)?
                    .into_iter()
                    .map(|pin| Object::File(dir.join(pin))),
            );
        }
        objects.extend(children(std::process::id())?);
        Ok(Self(objects))
    }

    /// Fails, naming each object, unless what exists is what existed then: nothing more, nothing less. What
    /// goes asynchronously (interfaces of a namespace that was removed) is given a moment.
    pub fn assert_same(&self, watch: &Watch<'_>) -> Result<()> {
        self.wait_for(|| Self::snapshot(watch))
    }

    /// The same without regard to processes: for what was restarted meanwhile.
    pub fn assert_same_objects(&self, watch: &Watch<'_>) -> Result<()> {
        self.without_processes()
            .wait_for(|| Ok(Self::snapshot(watch)?.without_processes()))
    }

    fn without_processes(&self) -> Self {
        let objects = self
            .0
            .iter()
            .filter(|object| !matches!(object, Object::Process { .. }));
        Self(objects.cloned().collect())
    }

    fn wait_for(&self, look: impl Fn() -> Result<Self>) -> Result<()> {
        let mut difference = self.difference(&look()?);
        let deadline = std::time::Instant::now() + slow(Duration::from_secs(2));
        while !difference.is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            difference = self.difference(&look()?);
        }
        if !difference.is_empty() {
            bail!("not as before: {}", difference.join(", "));
        }
        Ok(())
    }

    fn difference(&self, later: &Self) -> Vec<String> {
        let more = later
            .0
            .difference(&self.0)
            .map(|object| format!("{object} is left over"));
        let less = self
            .0
            .difference(&later.0)
            .map(|object| format!("{object} is missing"));
        more.chain(less).collect()
    }
}

/// The direct children of `pid`, by the kernel's own list.
fn children(pid: u32) -> Result<Vec<Object>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // A process may end while we look.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else {
            continue;
        };
        let (command, parent) = command_and_parent(&stat).with_context(|| format!("read {stat:?}"))?;
        if parent == pid {
            found.push(Object::Process { pid: child, command });
        }
    }
    Ok(found)
}

/// `pid (command) state ppid …`; the command may hold blanks and brackets.
fn command_and_parent(stat: &str) -> Option<(String, u32)> {
    let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
    let command = stat.get(begin + 1..end)?.to_owned();
    let parent = stat.get(end + 1..)?.split_whitespace().nth(1)?.parse().ok()?;
    Some((command, parent))
}

impl Watch<'_> {
    /// Also compares the files below `dir`.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dirs.push(dir.to_owned());
        self
    }
}

impl<'a> Watch<'a> {
    /// Also compares the interfaces of `netns`.
    #[must_use]
    pub fn interfaces(mut self, netns: &'a NetNs) -> Self {
        self.netns.push(netns);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_a_file_and_a_missing_one_are_named() {
        let netns = NetNs::new("left").unwrap();
        let dir = tempfile::tempdir().unwrap();
        netns.net(|net| net.add_bridge("before")).unwrap();
        let watch = || Watch {
            netns: vec![&netns],
            dirs: vec![dir.path().to_owned()],
        };
        // Other tests of this process make namespaces and children meanwhile.
        let own = |all: Leftovers| {
            let keep = |object: &Object| matches!(object, Object::Interface { .. } | Object::File(_));
            Leftovers(all.0.into_iter().filter(keep).collect())
        };
        let before = own(Leftovers::snapshot(&watch()).unwrap());
        netns.net(|net| net.add_bridge("after")).unwrap();
        netns.net(|net| net.delete("before")).unwrap();
        fs::write(dir.path().join("pin"), "").unwrap();
        let difference = before
            .difference(&own(Leftovers::snapshot(&watch()).unwrap()))
            .join("\n");
        for text in ["interface after", "pin is left over", "interface before"] {
            assert!(difference.contains(text), "{difference}");
        }
    }

    #[test]
    fn a_child_and_its_command_with_brackets_are_read() {
        assert_eq!(
            command_and_parent("12 (a (b) c) S 7 1 1"),
            Some(("a (b) c".to_owned(), 7))
        );
        let child = crate::Process::spawn(std::process::Command::new("sleep").arg("100")).unwrap();
        let found = children(std::process::id()).unwrap();
        assert!(
            found
                .iter()
                .any(|o| matches!(o, Object::Process { pid, .. } if *pid == child.pid()))
        );
    }
}
