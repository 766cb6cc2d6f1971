//! Making veth pairs, many in one call.

use std::{io, os::fd::AsFd as _};

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    desired::IfName,
    netlink::{link, socket::Answer},
    netns::Netns,
    observed::Obstacle,
    op::NewEnd,
    outcome::FailureKind,
    ownership::Managed,
};

/// How many namespaces are open at a time, below any usual limit on open files.
const OPEN_AT_ONCE: usize = 256;

impl Kernel {
    /// One group of requests per pair, see [`link::create`]. A name that is taken in the agent's namespace was found
    /// by the look before; one that is taken in the workload's is the kernel's `EEXIST`.
    pub(super) fn create_pairs(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        ends.chunks(OPEN_AT_ONCE)
            .flat_map(|ends| self.create_some(ends))
            .collect()
    }

    fn create_some(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        let opened: Vec<Result<Netns, Obstacle>> = ends
            .iter()
            .map(|end| Netns::open(&end.end.netns, self.own))
            .collect();
        let indexes: Vec<Option<u32>> = ends.iter().map(|_| self.indexes.take()).collect();
        let pairs = ends.iter().zip(&opened).zip(&indexes);
        let groups = pairs.filter_map(|((end, netns), index)| {
            Some(link::create(end, *index, netns.as_ref().ok()?.as_fd()))
        });
        let answers = self.netlink.groups(groups.collect());
        let mut answers = match answers {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                return vec![Err(OpError::kernel(format!("cannot make veth pairs: {error}"))); ends.len()];
            }
        };
        let mut results = Vec::with_capacity(ends.len());
        for ((end, netns), index) in ends.iter().zip(&opened).zip(indexes) {
            let result = match netns {
                Err(obstacle) => Err(OpError {
                    kind: obstacle.kind(),
                    message: obstacle.to_string(),
                    field: obstacle.field(),
                }),
                Ok(netns) => {
                    let answers = answers.next().unwrap_or_default();
                    if index.is_some() && index_may_be_taken(&answers) {
                        self.create_anywhere(end, netns)
                    } else {
                        self.created(end, answers)
                    }
                }
            };
            // One that somebody else has stays taken: the next full look finds out.
            if let (Err(_), Some(index)) = (&result, index) {
                self.indexes.release(index);
            }
            results.push(result);
        }
        results
    }

    fn created(&mut self, end: &NewEnd, answers: Vec<Answer>) -> Result<u32, OpError> {
        let mut answers = answers.into_iter();
        let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        if let Err(error) = answers.next().unwrap_or_else(missing) {
            return Err(explain(end, &error));
        }
        let up = answers.next_back().unwrap_or_else(missing);
        let got = answers.next_back().unwrap_or_else(missing);
        let finished = answers
            .chain(std::iter::once(up))
            .try_for_each(|answer| answer.map(drop))
            .and_then(|()| link::found(got));
        match finished {
            Ok(Some(link)) => {
                without_ipv6(&end.host);
                Ok(link.index)
            }
            Ok(None) => Err(OpError::kernel(format!(
                "interface {} vanished while it was made",
                end.host
            ))),
            Err(error) => {
                self.undo(end);
                Err(OpError::kernel(format!(
                    "cannot set up interface {}: {error}",
                    end.host
                )))
            }
        }
    }

    /// Somebody else has the index that was meant for the pair: the kernel chooses one, and its position is looked up
    /// by hash.
    fn create_anywhere(&mut self, end: &NewEnd, netns: &Netns) -> Result<u32, OpError> {
        let group = link::create(end, None, netns.as_fd());
        match self.netlink.groups(vec![group]).map(|mut answers| answers.pop()) {
            Ok(answers) => self.created(end, answers.unwrap_or_default()),
            Err(error) => Err(explain(end, &error)),
        }
    }

    /// Takes a pair away that was made and marked, but not finished.
    fn undo(&mut self, end: &NewEnd) {
        let found = self
            .netlink
            .batch(vec![link::get(&end.host)])
            .and_then(|mut got| link::found(got.remove(0)));
        let Ok(Some(link)) = found else { return };
        if let Some(ours) = Managed::recognise(&self.scope, link.index, &link.name, link.alias.as_deref()) {
            let _ = self.netlink.batch(vec![link::delete(&ours)]);
        }
    }
}

/// Whether the pair may not have been made because its index is in use: `EBUSY`, or `EEXIST` when the kernel looks the
/// index up first, which is also what it says of a name that is taken. Without an index only the name is left.
fn index_may_be_taken(answers: &[Answer]) -> bool {
    let first = answers.first().and_then(|answer| answer.as_ref().err());
    matches!(
        first.and_then(io::Error::raw_os_error),
        Some(libc::EBUSY | libc::EEXIST)
    )
}

/// Host ends have no use for IPv6 of their own, and the multicast route of each would make bringing up every later
/// one slower: the kernel walks all routes. There is none before the other end is up, so it is in time here. Where
/// /proc/sys is read-only the end works as well.
pub(super) fn without_ipv6(host: &IfName) {
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{host}/disable_ipv6"), "1");
}

fn explain(new: &NewEnd, error: &io::Error) -> OpError {
    let name = &new.end.name;
    if error.raw_os_error() == Some(libc::EEXIST) {
        let path = new.end.netns.path.display().to_string();
        let taken = Obstacle::NameTaken {
            name: name.clone(),
            path,
        };
        return OpError {
            kind: FailureKind::NameTaken,
            message: taken.to_string(),
            field: taken.field(),
        };
    }
    OpError::kernel(format!(
        "cannot make the veth pair {} / {name}: {error}",
        new.host
    ))
}
