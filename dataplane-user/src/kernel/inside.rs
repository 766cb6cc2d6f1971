//! Inside workloads' namespaces: looking at their ends, and changing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    desired::{IfName, NetnsId, NetnsRef},
    netlink::{
        inner::{self, About},
        link::{self, LinkState},
        rule,
        socket::{Answer, Netlink},
    },
    netns::{all_failed, visit},
    observed::{Inner, Obstacle},
    op::InnerChange,
    outcome::FailureKind,
};

/// Where a workload's end should be.
pub(super) struct Place<'a> {
    pub(super) name: &'a IfName,
    pub(super) host: Option<&'a LinkState>,
    /// Whether it may have policies.
    pub(super) policies: bool,
}

/// What a look at a place found.
pub(super) struct Seen {
    pub(super) found: Found,
    /// Whether the namespace has policies of interfaces that are gone.
    pub(super) strays: bool,
}

/// What is at a place.
pub(super) enum Found {
    Nothing,
    Foreign,
    Ours(Inner),
}

/// From this many names on, all interfaces of the namespace are read in place of each by itself.
const READ_ALL_FROM: usize = 64;

/// Looks at places, one result each.
pub(super) fn look(
    places: &[(&NetnsRef, Place<'_>)],
    own: NetnsId,
) -> Vec<Result<io::Result<Seen>, Obstacle>> {
    visit(places, own, |netlink, places| {
        look_at(netlink, places).unwrap_or_else(|error| all_failed(&error, places.len()))
    })
}

/// All places of one namespace.
fn look_at(netlink: &mut Netlink, places: &[&Place<'_>]) -> io::Result<Vec<io::Result<Seen>>> {
    let links = links_of(
        netlink,
        &places.iter().map(|place| place.name).collect::<Vec<_>>(),
    )?;
    // The two ends of a veth name each other.
    let is_pair = |found: &LinkState, host: &LinkState| {
        host.peer == Some(found.index) && found.peer == Some(host.index)
    };
    let ours: Vec<&LinkState> = places
        .iter()
        .filter_map(|place| {
            let (found, host) = (links.get(place.name)?, place.host?);
            is_pair(found, host).then_some(found)
        })
        .collect();
    let mut read = inner::read_all(netlink, &ours)?;
    let mut strays = false;
    if places.iter().any(|place| place.policies) {
        let mut all = rule::all(netlink)?;
        for (index, inner) in &mut read {
            inner.policies = all.remove(&rule::key(*index)).unwrap_or_default();
        }
        strays = !all.is_empty() && !rule::strays(netlink)?.is_empty();
    }
    let found = |place: &&Place<'_>| {
        let Some(found) = links.get(place.name) else {
            return Found::Nothing;
        };
        let ours = place.host.filter(|host| is_pair(found, host));
        match ours.and_then(|_| read.remove(&found.index)) {
            Some(inner) => Found::Ours(inner),
            None => Found::Foreign,
        }
    };
    let seen = places.iter().map(found).map(|found| Ok(Seen { found, strays }));
    Ok(seen.collect())
}

fn links_of(netlink: &mut Netlink, names: &[&IfName]) -> io::Result<BTreeMap<IfName, LinkState>> {
    let found: Vec<LinkState> = if names.len() < READ_ALL_FROM {
        let answers = netlink.batch(names.iter().map(|name| link::get(name)).collect())?;
        let links = answers
            .into_iter()
            .map(link::found)
            .collect::<io::Result<Vec<_>>>()?;
        links.into_iter().flatten().collect()
    } else {
        let wanted: BTreeSet<&IfName> = names.iter().copied().collect();
        link::all(netlink, |link| wanted.contains(&link.name))?
    };
    Ok(found.into_iter().map(|link| (link.name.clone(), link)).collect())
}

/// A change, and the index of the end if it was made just now.
struct Task<'a> {
    change: &'a InnerChange,
    fresh: Option<u32>,
}

impl Kernel {
    pub(super) fn configure_inside(&mut self, changes: &[&InnerChange]) -> Results<()> {
        let mut tasks = Vec::with_capacity(changes.len());
        for change in changes {
            let fresh = self.fresh.remove(&change.host);
            tasks.push(Task { change, fresh });
        }
        let places: Vec<_> = tasks.iter().map(|task| (&task.change.netns, task)).collect();
        let visited = visit(&places, self.own, |netlink, tasks| {
            let done = configure(netlink, tasks);
            match done {
                Ok(done) => done.into_iter().map(Ok).collect(),
                Err(error) => all_failed(&error, tasks.len()),
            }
        });
        let result = |(change, visited): (&&InnerChange, Result<io::Result<_>, Obstacle>)| match visited {
            Ok(done) => done.unwrap_or_else(|error| Err(failed(change, "configure", &error))),
            Err(obstacle) => Err(obstacle.into()),
        };
        changes.iter().zip(visited).map(result).collect()
    }
}

fn failed(change: &InnerChange, what: &str, error: &io::Error) -> OpError {
    let path = change.netns.path.display();
    OpError::kernel(format!("cannot {what} {} in {path}: {error}", change.name))
}

/// All changes in one namespace: the requests of all go together, and each has its own answers.
fn configure(netlink: &mut Netlink, tasks: &[&&Task<'_>]) -> io::Result<Results<()>> {
    let unknown: Vec<&IfName> = tasks
        .iter()
        .filter(|task| task.fresh.is_none())
        .map(|task| &task.change.name)
        .collect();
    let links = links_of(netlink, &unknown)?;
    let index = |task: &Task<'_>| {
        let known = || links.get(&task.change.name).map(|link| link.index);
        task.fresh.or_else(known)
    };
    let (mut abouts, mut groups) = (Vec::new(), Vec::new());
    for task in tasks {
        let requests = index(task).map_or_else(Vec::new, |index| inner::requests(task.change, index));
        let (about, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        abouts.push(about);
        groups.push(requests);
    }
    let answers = netlink.groups(groups)?;
    let mut results = Vec::with_capacity(tasks.len());
    for ((task, about), answers) in tasks.iter().zip(&abouts).zip(answers) {
        results.push(if index(task).is_some() {
            judge(netlink, task.change, about.iter().zip(answers))
        } else if task.change.only_removes_policies() {
            // Its rules stayed when it went.
            rule::sweep(netlink).map_err(|error| failed(task.change, "sweep up after", &error))
        } else {
            Err(failed(
                task.change,
                "find",
                &io::Error::from(io::ErrorKind::NotFound),
            ))
        });
        if task.change.forward {
            forward_ipv6(&task.change.name);
        }
    }
    Ok(results)
}

/// Routes IPv6 packets that come in at an interface of this thread's namespace. There is no netlink for it, and no
/// setting per interface before Linux 6.17: there, and where /proc/sys is read-only, the namespace's own setting counts.
fn forward_ipv6(name: &IfName) {
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/force_forwarding"), "1");
}

fn judge<'a>(
    netlink: &mut Netlink,
    change: &InnerChange,
    answers: impl Iterator<Item = (&'a About, Answer)>,
) -> Result<(), OpError> {
    for (about, answer) in answers {
        let Err(error) = answer else { continue };
        if !is_harmless(netlink, change, about, &error) {
            return Err(explain(change, about, &error));
        }
    }
    Ok(())
}

/// What is gone need not be removed, and what is there as planned need not be added.
fn is_harmless(netlink: &mut Netlink, change: &InnerChange, about: &About, error: &io::Error) -> bool {
    let code = error.raw_os_error();
    match about {
        About::Removal => matches!(
            code,
            Some(libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENODEV)
        ),
        About::AutomaticAddresses => code == Some(libc::EAFNOSUPPORT),
        About::Link => false,
        // The kernel compares all of a rule, and the table is ours.
        About::Policy(_) => code == Some(libc::EEXIST),
        About::Address(_) | About::Route(_) | About::Neighbour(_) => {
            code == Some(libc::EEXIST) && is_there(netlink, change, about).unwrap_or(false)
        }
    }
}

/// Whether what was to be added is at the end already.
fn is_there(netlink: &mut Netlink, change: &InnerChange, about: &About) -> io::Result<bool> {
    let Some(link) = links_of(netlink, &[&change.name])?.remove(&change.name) else {
        return Ok(false);
    };
    let inner = inner::read(netlink, &link)?;
    Ok(match about {
        About::Address(address) => inner.addresses.iter().any(|found| found.value == *address),
        About::Route(route) => inner.routes.iter().any(|found| found.value == *route),
        About::Neighbour(entry) => inner.neighbours.iter().any(|found| found.value == *entry),
        About::Link | About::Policy(_) | About::AutomaticAddresses | About::Removal => false,
    })
}

fn explain(change: &InnerChange, about: &About, error: &io::Error) -> OpError {
    let taken = error.raw_os_error() == Some(libc::EEXIST);
    let kind = if taken {
        FailureKind::AddressTaken
    } else {
        FailureKind::Kernel
    };
    let (what, field) = match about {
        About::Link => ("change the link".to_owned(), None),
        About::AutomaticAddresses => ("switch automatic IPv6 addresses off".to_owned(), None),
        About::Removal => ("remove what is no longer planned".to_owned(), None),
        About::Address(address) => (
            format!("add address {address}"),
            Some(("context.ip_context".to_owned(), address.to_string())),
        ),
        About::Route(route) => (
            format!("add the route to {}", route.prefix),
            Some(("context.ip_context".to_owned(), route.prefix.to_string())),
        ),
        About::Neighbour(entry) => (
            format!("add neighbour {}", entry.ip),
            Some(("context.ip_context".to_owned(), entry.ip.to_string())),
        ),
        About::Policy(policy) => (
            format!("add the policy for {policy}"),
            Some(("context.ip_context.policies".to_owned(), String::new())),
        ),
    };
    let hint = if taken {
        "; something else in the namespace has it: remove that, or ask for another prefix"
    } else {
        ""
    };
    let (name, path) = (&change.name, change.netns.path.display());
    OpError {
        kind,
        message: format!("cannot {what} at {name} in {path}: {error}{hint}"),
        field,
    }
}
