//! Inside workloads' namespaces: looking at their ends, and changing them.

use std::io;

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    desired::IfName,
    netlink::{
        inner::{self, About},
        link::{self, LinkState},
        socket::Netlink,
    },
    netns::{Netns, visit},
    observed::Inner,
    op::InnerChange,
    outcome::FailureKind,
};

/// Where a workload's end should be.
pub(super) struct Place<'a> {
    pub(super) name: &'a IfName,
    pub(super) host: Option<&'a LinkState>,
}

/// What is at a place.
pub(super) enum Found {
    Nothing,
    Foreign,
    Ours(Inner),
}

/// Looks at places, one result each.
pub(super) fn look(places: &[(&Netns, Place<'_>)]) -> Vec<io::Result<Found>> {
    visit(places, |netlink, place| {
        let Some(found) = link::found(netlink.batch(vec![link::get(place.name)])?.remove(0))? else {
            return Ok(Found::Nothing);
        };
        // The two ends of a veth name each other.
        let pair = |host: &&LinkState| host.peer == Some(found.index) && found.peer == Some(host.index);
        match place.host.filter(pair) {
            Some(_) => Ok(Found::Ours(inner::read(netlink, &found)?)),
            None => Ok(Found::Foreign),
        }
    })
}

impl Kernel {
    pub(super) fn configure_inside(&mut self, changes: &[&InnerChange]) -> Results<()> {
        let opened: Vec<_> = changes
            .iter()
            .map(|change| Netns::open(&change.netns, self.own))
            .collect();
        let places: Vec<(&Netns, &InnerChange)> = opened
            .iter()
            .zip(changes)
            .filter_map(|(netns, change)| Some((netns.as_ref().ok()?, *change)))
            .collect();
        let mut visited = visit(&places, |netlink, change| Ok(configure(netlink, change))).into_iter();
        let result = |(netns, change): (&Result<Netns, _>, &&InnerChange)| match netns {
            Err(obstacle) => {
                let obstacle: &crate::observed::Obstacle = obstacle;
                Err(OpError {
                    kind: obstacle.kind(),
                    message: obstacle.to_string(),
                    field: obstacle.field(),
                })
            }
            Ok(_) => visited
                .next()
                .unwrap_or(Ok(Ok(())))
                .unwrap_or_else(|error| Err(failed(change, "enter", &error))),
        };
        opened.iter().zip(changes).map(result).collect()
    }
}

fn failed(change: &InnerChange, what: &str, error: &io::Error) -> OpError {
    let path = change.netns.path.display();
    OpError::kernel(format!("cannot {what} {} in {path}: {error}", change.name))
}

fn configure(netlink: &mut Netlink, change: &InnerChange) -> Result<(), OpError> {
    let found = netlink
        .batch(vec![link::get(&change.name)])
        .and_then(|mut answers| link::found(answers.remove(0)));
    let link = match found {
        Ok(Some(link)) => link,
        Ok(None) => return Err(failed(change, "find", &io::Error::from(io::ErrorKind::NotFound))),
        Err(error) => return Err(failed(change, "find", &error)),
    };
    let (about, requests): (Vec<_>, Vec<_>) = inner::requests(change, link.index).into_iter().unzip();
    let answers = netlink
        .batch(requests)
        .map_err(|error| failed(change, "configure", &error))?;
    for (about, answer) in about.iter().zip(answers) {
        let Err(error) = answer else { continue };
        if !is_harmless(netlink, &link, about, &error) {
            return Err(explain(change, about, &error));
        }
    }
    Ok(())
}

/// What is gone need not be removed, and what is there as planned need not be added.
fn is_harmless(netlink: &mut Netlink, link: &LinkState, about: &About, error: &io::Error) -> bool {
    let code = error.raw_os_error();
    if *about == About::Removal {
        return matches!(
            code,
            Some(libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENODEV)
        );
    }
    if code != Some(libc::EEXIST) {
        return false;
    }
    let Ok(inner) = inner::read(netlink, link) else {
        return false;
    };
    match about {
        About::Address(address) => inner.addresses.iter().any(|found| found.value == *address),
        About::Route(route) => inner.routes.iter().any(|found| found.value == *route),
        About::Neighbour(entry) => inner.neighbours.iter().any(|found| found.value == *entry),
        About::Link | About::Removal => false,
    }
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
