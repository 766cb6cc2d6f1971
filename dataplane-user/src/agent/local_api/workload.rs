//! Whom a call is about: the caller, or, if it is an operator, whom it names.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::sched::{CloneFlags, setns};
use tieline_proto::tieline::agent::v1 as proto;

use super::{
    super::{
        attested::{Attested, Facts, SourceReport},
        error::CallError,
        place::Place,
    },
    peer::Peer,
};
use crate::desired::{IfName, NetnsId, NetnsRef};

/// Where `ip netns` and Tieline keep namespaces by name.
const NAMED: &str = "/run/netns";
const INODE_URL: &str = "mechanism.parameters[inodeURL]";
const ENDPOINT_URL: &str = "url";

const RULE_FORM: &str = "must be file:///run/netns/NAME, file:///proc/PID/ns/net or inode://DEVICE/INODE";
const RULE_ENDPOINT_FORM: &str =
    "must be file:///run/netns/NAME, file:///proc/PID/ns/net, inode://DEVICE/INODE or interface:///NAME";
const RULE_FOREIGN: &str = "only root in the agent's own user and pid namespaces may name another network namespace; \
                            leave the field empty to mean your own";
const RULE_FOREIGN_INTERFACE: &str =
    "only root in the agent's own user and pid namespaces may offer an interface of the node";
const RULE_MISSING: &str = "no such network namespace on this node";
const RULE_NOT_NETNS: &str = "is not a network namespace file";
const RULE_OWN: &str = "is the agent's own network namespace, whose interfaces belong to the node: run in a network \
                        namespace of your own, or, as an operator, name one";
const RULE_INTERFACE: &str = "the interface's name must have 1 to 15 bytes, without '/', ':' or white space";
const RULE_NO_INTERFACE: &str = "no such interface in the agent's network namespace";
const RULE_ONE: &str = "every mechanism of one request must name the same network namespace";

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// A network namespace.
    Netns(NetnsRef),
    /// An existing interface of the node.
    Interface(IfName),
    /// No workload's namespace, or none that exists any more: enough to release what it had.
    Gone,
}

/// Attests callers for one node.
#[derive(Clone, Debug)]
pub(crate) struct Attestor {
    node: Arc<str>,
    /// The agent's own network namespace.
    own: NetnsId,
    attested: Arc<Attested>,
}

/// What a call wants of the namespace it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Make something in it: it must exist and be a workload's.
    Attach,
    /// Take something away: it may be gone.
    Release,
}

impl Attestor {
    /// For the node with this name. `own` is the agent's network namespace, `attested` what proves labels.
    pub(crate) fn new(node: &str, own: NetnsId, attested: Arc<Attested>) -> Self {
        Self {
            node: node.into(),
            own,
            attested,
        }
    }

    /// What proves labels, as it stands.
    pub(crate) fn sources(&self) -> Vec<SourceReport> {
        self.attested.report()
    }

    /// Whom a request or close is about. `urls`: the `inodeURL` of each mechanism that has one.
    pub(crate) fn client<'a>(
        &self,
        peer: &Peer,
        urls: impl Iterator<Item = &'a str>,
        purpose: Purpose,
    ) -> Result<proto::Workload, CallError> {
        let mut named: Option<&str> = None;
        for url in urls.filter(|url| !url.is_empty()) {
            if named.is_some_and(|first| first != url) {
                return Err(invalid(INODE_URL, url, RULE_ONE));
            }
            named = Some(url);
        }
        let subject = match named {
            Some(url) => self.netns_subject(peer, INODE_URL, url, RULE_FORM, purpose)?,
            None => self.caller_itself(peer, INODE_URL, purpose)?,
        };
        self.workload(peer, &subject, named.unwrap_or_default(), purpose)
    }

    /// Whom a registration is about, and the interface that it offers, if it is one of the node's.
    pub(crate) fn endpoint(
        &self,
        peer: &Peer,
        url: &str,
        purpose: Purpose,
    ) -> Result<(proto::Workload, String), CallError> {
        let subject = if url.is_empty() {
            self.caller_itself(peer, ENDPOINT_URL, purpose)?
        } else if let Some(name) = url.strip_prefix("interface:///") {
            interface_subject(peer, url, name, purpose)?
        } else {
            self.netns_subject(peer, ENDPOINT_URL, url, RULE_ENDPOINT_FORM, purpose)?
        };
        let interface = match &subject {
            Subject::Interface(name) => name.to_string(),
            Subject::Netns(_) | Subject::Gone => String::new(),
        };
        Ok((self.workload(peer, &subject, url, purpose)?, interface))
    }

    fn workload(
        &self,
        peer: &Peer,
        subject: &Subject,
        url: &str,
        purpose: Purpose,
    ) -> Result<proto::Workload, CallError> {
        let labels = match facts(peer, subject, url)? {
            // Whoever gives something up need not prove what it is.
            Some(facts) if purpose == Purpose::Attach => self.attested.labels_of(&facts)?,
            _ => HashMap::new(),
        };
        let netns = match subject {
            Subject::Netns(netns) => netns.clone(),
            // Control wants to know who asks in any case.
            Subject::Interface(_) | Subject::Gone => place_of(peer)?,
        };
        let netns = proto::NetworkNamespace {
            path: netns.path.to_string_lossy().into_owned(),
            device: netns.id.device,
            inode: netns.id.inode,
        };
        Ok(proto::Workload {
            node: self.node.to_string(),
            uid: peer.uid,
            pid: peer.pid,
            netns: Some(netns),
            cgroup: peer.cgroup()?,
            operator: peer.is_operator()?,
            labels,
        })
    }

    fn caller_itself(
        &self,
        peer: &Peer,
        field: &'static str,
        purpose: Purpose,
    ) -> Result<Subject, CallError> {
        let netns = place_of(peer)?;
        if netns.id != self.own {
            return Ok(Subject::Netns(netns));
        }
        match purpose {
            Purpose::Attach => Err(invalid(field, "", RULE_OWN)),
            Purpose::Release => Ok(Subject::Gone),
        }
    }

    fn netns_subject(
        &self,
        peer: &Peer,
        field: &'static str,
        url: &str,
        form: &'static str,
        purpose: Purpose,
    ) -> Result<Subject, CallError> {
        let location = Location::parse(url).ok_or_else(|| invalid(field, url, form))?;
        let caller = peer.netns()?;
        // Nothing is looked up for a caller who may not know the answer.
        if !peer.is_operator()? {
            let own = match &location {
                Location::Inode(id) => *id == caller,
                Location::File(path) => netns_id(path).is_ok_and(|id| id == caller),
            };
            if !own {
                return Err(CallError::Forbidden {
                    field,
                    value: url.to_owned(),
                    rule: RULE_FOREIGN,
                });
            }
            return self.caller_itself(peer, field, purpose);
        }
        match location.resolve(caller, peer.pid) {
            Ok(netns) if netns.id == self.own => match purpose {
                Purpose::Attach => Err(invalid(field, url, RULE_OWN)),
                Purpose::Release => Ok(Subject::Gone),
            },
            Ok(netns) => Ok(Subject::Netns(netns)),
            Err(Unresolved::Missing) if purpose == Purpose::Release => Ok(Subject::Gone),
            Err(Unresolved::Missing) => Err(CallError::NotFound {
                field,
                value: url.to_owned(),
                rule: RULE_MISSING,
            }),
            Err(Unresolved::NotANamespace) => Err(invalid(field, url, RULE_NOT_NETNS)),
        }
    }
}

fn interface_subject(peer: &Peer, url: &str, name: &str, purpose: Purpose) -> Result<Subject, CallError> {
    let name = IfName::new(name).map_err(|_| invalid(ENDPOINT_URL, url, RULE_INTERFACE))?;
    if !peer.is_operator()? {
        return Err(CallError::Forbidden {
            field: ENDPOINT_URL,
            value: url.to_owned(),
            rule: RULE_FOREIGN_INTERFACE,
        });
    }
    if purpose == Purpose::Attach && nix::net::if_::if_nametoindex(name.as_str()).is_err() {
        return Err(CallError::NotFound {
            field: ENDPOINT_URL,
            value: url.to_owned(),
            rule: RULE_NO_INTERFACE,
        });
    }
    Ok(Subject::Interface(name))
}

fn invalid(field: &'static str, value: &str, rule: &'static str) -> CallError {
    CallError::Invalid {
        field,
        value: value.to_owned(),
        rule,
    }
}

/// What the kernel tells of whom the call is about: the caller, or the process by which it names somebody else.
fn facts(peer: &Peer, subject: &Subject, url: &str) -> Result<Option<Facts>, CallError> {
    let netns = match subject {
        Subject::Gone => return Ok(None),
        Subject::Interface(name) => {
            return Ok(Some(Facts {
                place: Place::Interface(name.clone()),
                cgroup: None,
                uid: None,
            }));
        }
        Subject::Netns(netns) => netns,
    };
    let of = |process: &Peer| {
        Ok(Facts {
            place: Place::Netns(netns.clone()),
            cgroup: Some(process.cgroup()?),
            uid: Some(process.uid),
        })
    };
    if peer.netns()? == netns.id {
        return of(peer).map(Some);
    }
    let named = process_in(url).and_then(|pid| Peer::of_process(pid).ok());
    match named.filter(|process| process.netns().is_ok_and(|id| id == netns.id)) {
        Some(process) => of(&process).map(Some),
        None => Ok(Some(Facts {
            place: Place::Netns(netns.clone()),
            cgroup: None,
            uid: None,
        })),
    }
}

/// The process by which a URL names a namespace.
fn process_in(url: &str) -> Option<u32> {
    let rest = url.strip_prefix("file:///proc/")?;
    rest.strip_suffix("/ns/net")?.parse().ok()
}

/// The namespace that a process is in.
fn place_of(peer: &Peer) -> Result<NetnsRef, CallError> {
    let id = peer.netns()?;
    let path = named_path(id).unwrap_or_else(|| PathBuf::from(format!("/proc/{}/ns/net", peer.pid)));
    Ok(NetnsRef { path, id })
}

/// How a URL names a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    File(PathBuf),
    Inode(NetnsId),
}

/// Why a location leads to no namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unresolved {
    Missing,
    NotANamespace,
}

impl Location {
    fn parse(url: &str) -> Option<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            let path = Path::new(path);
            let mut parts = path.components();
            let absolute = parts.next() == Some(Component::RootDir);
            let plain =
                parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
            return (absolute && plain && !url.contains('\0')).then(|| Self::File(path.to_owned()));
        }
        let (device, inode) = url.strip_prefix("inode://")?.split_once('/')?;
        Some(Self::Inode(NetnsId {
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
        }))
    }

    /// For an operator in the namespace `caller`.
    fn resolve(&self, caller: NetnsId, pid: u32) -> Result<NetnsRef, Unresolved> {
        match self {
            Self::File(path) => {
                let id = netns_id(path)?;
                let stable = path
                    .starts_with(NAMED)
                    .then(|| path.clone())
                    .or_else(|| named_path(id));
                Ok(NetnsRef {
                    path: stable.unwrap_or_else(|| path.clone()),
                    id,
                })
            }
            Self::Inode(id) => match named_path(*id) {
                Some(path) => Ok(NetnsRef { path, id: *id }),
                None if *id == caller => Ok(NetnsRef {
                    path: PathBuf::from(format!("/proc/{pid}/ns/net")),
                    id: *id,
                }),
                None => Err(Unresolved::Missing),
            },
        }
    }
}

/// The identity of the network namespace behind a file.
fn netns_id(path: &Path) -> Result<NetnsId, Unresolved> {
    // Opening a FIFO or a device could block or have effects: look at the kind of file system first.
    let kind = nix::sys::statfs::statfs(path).map_err(|_| Unresolved::Missing)?;
    if kind.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
        return Err(Unresolved::NotANamespace);
    }
    let file = File::open(path).map_err(|_| Unresolved::Missing)?;
    let metadata = file.metadata().map_err(|_| Unresolved::Missing)?;
    let id = NetnsId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    is_net(file).then_some(id).ok_or(Unresolved::NotANamespace)
}

/// Whether a namespace file is that of a *network* namespace: only such a one can be entered as one. Tried on a
/// thread that ends right after.
fn is_net(file: File) -> bool {
    let entered = std::thread::spawn(move || setns(&file, CloneFlags::CLONE_NEWNET).is_ok());
    entered.join().unwrap_or(false)
}

/// The name under which a namespace outlives its processes, if it has one.
fn named_path(id: NetnsId) -> Option<PathBuf> {
    let entries = fs::read_dir(NAMED).ok()?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| fs::metadata(path).is_ok_and(|m| m.dev() == id.device && m.ino() == id.inode))
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
