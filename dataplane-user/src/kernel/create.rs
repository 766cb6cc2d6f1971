//! Making veth pairs, many in one call.

use std::{io, os::fd::AsFd as _};

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
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
        let pairs = ends.iter().zip(&opened);
        let groups = pairs.filter_map(|(end, netns)| Some(link::create(end, netns.as_ref().ok()?.as_fd())));
        let answers = self.netlink.groups(groups.collect());
        let mut answers = match answers {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                return vec![Err(OpError::kernel(format!("cannot make veth pairs: {error}"))); ends.len()];
            }
        };
        let mut results = Vec::with_capacity(ends.len());
        for (end, netns) in ends.iter().zip(&opened) {
            results.push(match netns {
                Err(obstacle) => Err(OpError {
                    kind: obstacle.kind(),
                    message: obstacle.to_string(),
                    field: obstacle.field(),
                }),
                Ok(_) => self.created(end, answers.next().unwrap_or_default()),
            });
        }
        results
    }

    fn created(&mut self, end: &NewEnd, answers: Vec<Answer>) -> Result<u32, OpError> {
        let mut answers = answers.into_iter();
        let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        if let Err(error) = answers.next().unwrap_or_else(missing) {
            return Err(explain(end, &error));
        }
        let got = answers.next_back().unwrap_or_else(missing);
        let finished = answers
            .try_for_each(|answer| answer.map(drop))
            .and_then(|()| link::found(got));
        match finished {
            Ok(Some(link)) => Ok(link.index),
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
