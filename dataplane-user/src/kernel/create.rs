//! Making veth pairs, many in one call.

use std::{collections::BTreeMap, io, os::fd::AsFd as _};

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    desired::{IfName, NetnsRef},
    netlink::{
        link::{self, LinkState},
        socket::Answer,
    },
    netns::Netns,
    observed::Obstacle,
    op::NewEnd,
    ownership::Managed,
};

/// How many namespaces are open at a time, below any usual limit on open files.
const OPEN_AT_ONCE: usize = 256;

impl Kernel {
    /// Makes pairs, puts host ends on the filter block and brings them up, each as one batch. A host end is on the block
    /// before it is up: afterwards the kernel would wait for its queues, for each end, with the network lock held.
    ///
    /// A name that is taken in the agent's namespace was found by the look before; one that is taken in the workload's is
    /// the kernel's `EEXIST`.
    pub(super) fn create_pairs(&mut self, ends: &[&NewEnd]) -> Results<u32> {
        let mut made = Vec::with_capacity(ends.len());
        for ends in ends.chunks(OPEN_AT_ONCE) {
            made.extend(self.create_some(ends));
        }
        self.join(ends, &made);
        self.bring_up(ends, made)
    }

    fn create_some(&mut self, ends: &[&NewEnd]) -> Results<LinkState> {
        let mut opened: BTreeMap<&NetnsRef, Result<Netns, Obstacle>> = BTreeMap::new();
        for end in ends {
            let netns = &end.end.netns;
            opened
                .entry(netns)
                .or_insert_with(|| Netns::open(netns, self.own));
        }
        let mut guesses = Vec::with_capacity(ends.len());
        let mut groups = Vec::with_capacity(ends.len());
        for end in ends {
            let Some(Ok(netns)) = opened.get(&end.end.netns) else {
                guesses.push(None);
                continue;
            };
            let guess = self.indexes.take();
            guesses.push(guess);
            groups.push(link::create(end, guess, netns.as_fd()));
        }
        let mut answers = match self.netlink.groups(groups) {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                guesses
                    .into_iter()
                    .flatten()
                    .for_each(|guess| self.indexes.release(guess));
                return vec![Err(OpError::kernel(format!("cannot make veth pairs: {error}"))); ends.len()];
            }
        };
        let mut results = Vec::with_capacity(ends.len());
        for (end, guess) in ends.iter().zip(guesses) {
            let result = match opened.get(&end.end.netns) {
                Some(Err(obstacle)) => Err(obstacle.clone().into()),
                Some(Ok(netns)) => {
                    let answers = answers.next().unwrap_or_default();
                    if guess.is_some() && index_may_be_taken(&answers) {
                        self.create_anywhere(end, netns)
                    } else {
                        self.created(end, answers)
                    }
                }
                None => Err(unanswered(end)),
            };
            // One that somebody else has stays taken: the next full look finds out.
            if let (Err(_), Some(guess)) = (&result, guess) {
                self.indexes.release(guess);
            }
            results.push(result);
        }
        results
    }

    fn created(&mut self, end: &NewEnd, answers: Vec<Answer>) -> Result<LinkState, OpError> {
        let mut answers = answers.into_iter();
        match answers.next() {
            None => return Err(unanswered(end)),
            Some(Err(error)) => return Err(explain(end, &error)),
            Some(Ok(_)) => {}
        }
        let missing = || Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        let marked = answers.next().unwrap_or_else(missing);
        let got = answers.next().unwrap_or_else(missing);
        match marked.and_then(|_| link::found(got)) {
            Ok(Some(link)) => {
                let fresh = link.peer.map(|index| (end.host.clone(), index));
                self.fresh.extend(fresh);
                if let Some(walk) = &mut self.walk {
                    walk.made.push(link.index);
                }
                Ok(link)
            }
            Ok(None) => Err(OpError::kernel(format!(
                "interface {} vanished while it was made",
                end.host
            ))),
            Err(error) => {
                self.undo(end);
                Err(unfinished(end, &error))
            }
        }
    }

    /// Somebody else has the index that was meant for the pair: the kernel chooses one, and its position is looked up
    /// by hash.
    fn create_anywhere(&mut self, end: &NewEnd, netns: &Netns) -> Result<LinkState, OpError> {
        let group = link::create(end, None, netns.as_fd());
        match self.netlink.groups(vec![group]).map(|mut answers| answers.pop()) {
            Ok(answers) => self.created(end, answers.unwrap_or_default()),
            Err(error) => Err(explain(end, &error)),
        }
    }

    /// Puts the host ends that were made on the filter block. One that could not be is attached later, by an operation of
    /// its own, which says why it cannot.
    fn join(&mut self, ends: &[&NewEnd], made: &Results<LinkState>) {
        let fresh: Vec<(&IfName, u32)> = ends
            .iter()
            .zip(made)
            .filter_map(|(end, made)| Some((&end.host, made.as_ref().ok()?.index)))
            .collect();
        let (attachments, program) = (&self.loaded.attachments, &self.loaded.program);
        self.joined
            .extend(attachments.join(&mut self.netlink, program, &fresh));
    }

    fn bring_up(&mut self, ends: &[&NewEnd], made: Results<LinkState>) -> Results<u32> {
        let up = made.iter().flatten().map(|link| link::up(link.index)).collect();
        let answers = self.netlink.batch(up);
        let failed = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let mut answers = answers.as_ref().map(|answers| answers.iter());
        let mut results = Vec::with_capacity(made.len());
        for (end, made) in ends.iter().zip(made) {
            let result = made.and_then(|link| {
                let up = match &mut answers {
                    Ok(answers) => match answers.next() {
                        Some(Ok(_)) => Ok(link.index),
                        Some(Err(error)) => Err(failed(error)),
                        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    },
                    Err(error) => Err(failed(error)),
                };
                up.map_err(|error| {
                    self.undo(end);
                    self.indexes.release(link.index);
                    unfinished(end, &error)
                })
            });
            results.push(result);
        }
        results
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

fn unanswered(end: &NewEnd) -> OpError {
    OpError::kernel(format!("the kernel did not answer about interface {}", end.host))
}

fn unfinished(end: &NewEnd, error: &io::Error) -> OpError {
    OpError::kernel(format!("cannot set up interface {}: {error}", end.host))
}

fn explain(new: &NewEnd, error: &io::Error) -> OpError {
    let name = &new.end.name;
    if error.raw_os_error() == Some(libc::EEXIST) {
        let path = new.end.netns.path.display().to_string();
        let taken = Obstacle::NameTaken {
            name: name.clone(),
            path,
        };
        return taken.into();
    }
    OpError::kernel(format!(
        "cannot make the veth pair {} / {name}: {error}",
        new.host
    ))
}
