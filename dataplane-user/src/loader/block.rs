//! One filter for all host ends of a node: they share a *block*, on which our program is the filter.
//!
//! An interface joins with one request, for which the kernel waits for nobody, and leaves with its end: there is
//! nothing to pin and nothing to record. The block exists as long as an interface is in it. Its number comes from the
//! node's name, and the filter on it carries that name, so every agent of the node finds it by looking. A block
//! that somebody else uses is left alone and the next number taken.
//!
//! There are several blocks: when an interface leaves one, the kernel walks the list of its members, twice. Which one
//! an interface goes to is in its index, so that interfaces made one after the other share one, and a small node has
//! one block only.

mod messages;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    os::fd::BorrowedFd,
};

use dataplane_common::names;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use self::messages::{at_block, blocks_of, ingress_block, qdisc};
use super::tc;
use crate::{
    netlink::{
        link,
        socket::{Answer, Netlink, Request},
    },
    ownership::{Managed, NodeScope},
};

/// The smallest number tried; `tl` in front, for people to recognise.
const FIRST: u32 = 0x746c_0000;
/// How many numbers a node has. Others in use are those of agents of other nodes in this namespace, or chance.
const NUMBERS: u32 = 16;
/// How many consecutive interface indexes share a block.
const MEMBERS: u32 = 2048;
/// The node's blocks.
pub(super) struct Blocks {
    scope: NodeScope,
    first: u32,
    filter: String,
}

/// Where new members go.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: u32,
    /// Whether our filter is on it.
    has_filter: bool,
}

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Our filter is on it.
    Ours,
    /// Somebody else's filter is in its place.
    Foreign,
    /// Our filter is not on it; whether it exists at all is another question.
    NoFilter,
}

impl Blocks {
    pub(super) fn new(node: &str) -> Self {
        // FNV-1a: the number must be the same in every release.
        let hash = node.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Self {
            scope: NodeScope::new(node),
            first: FIRST | hash & 0xffff,
            filter: format!("tieline/{node}/{}", names::PROGRAM_WIRE_INGRESS),
        }
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + Clone + use<> {
        let first = self.first;
        (0..NUMBERS).map(move |i| FIRST | first.wrapping_add(i) & 0xffff)
    }

    /// The node's numbers in the order in which they are tried for an interface.
    fn numbers_for(&self, index: u32) -> impl Iterator<Item = u32> + use<> {
        let skipped = (index / MEMBERS % NUMBERS) as usize;
        self.numbers().cycle().skip(skipped).take(NUMBERS as usize)
    }

    fn states(&self, netlink: &mut Netlink, numbers: &[u32]) -> io::Result<Vec<Block>> {
        let get = |number: &u32| {
            let query = tc::filter(at_block(*number), None);
            Request::new(RouteNetlinkMessage::GetTrafficFilter(query), 0)
        };
        let answers = netlink.batch(numbers.iter().map(get).collect())?;
        let state = |answer: Answer| match answer {
            Ok(found) if found.iter().any(|message| tc::is_filter(message, &self.filter)) => Ok(Block::Ours),
            Ok(_) => Ok(Block::Foreign),
            // There is no such block, or no such filter on it, or one of another kind.
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINVAL) => Ok(Block::NoFilter),
                _ => Err(error),
            },
        };
        answers.into_iter().map(state).collect()
    }

    /// The numbers of blocks with our filter.
    pub(super) fn ours(&self, netlink: &mut Netlink) -> io::Result<BTreeSet<u32>> {
        let numbers: Vec<u32> = self.numbers().collect();
        let states = self.states(netlink, &numbers)?;
        let found = numbers.into_iter().zip(states);
        Ok(found
            .filter(|(_, state)| *state == Block::Ours)
            .map(|(number, _)| number)
            .collect())
    }

    /// The block for a new member, and whether our filter is on it: of the numbers in the member's order, the first that
    /// is ours, or that nobody else uses. `members` are those of all blocks, once they were asked for.
    fn choose(
        &self,
        netlink: &mut Netlink,
        index: u32,
        members: &mut Option<Members>,
    ) -> io::Result<Option<Place>> {
        for block in self.numbers_for(index) {
            match self.states(netlink, &[block])?.first() {
                Some(Block::Ours) => {
                    return Ok(Some(Place {
                        block,
                        has_filter: true,
                    }));
                }
                Some(Block::NoFilter) => {}
                Some(Block::Foreign) | None => continue,
            }
            let members = match members {
                Some(members) => members,
                None => members.insert(members_of_blocks(netlink)?),
            };
            let members = members.get(&block).map_or(&[][..], Vec::as_slice);
            if self.are_ours(netlink, members)? && is_without_filters(netlink, block)? {
                return Ok(Some(Place {
                    block,
                    has_filter: false,
                }));
            }
        }
        Ok(None)
    }

    /// Whether all of these interfaces are host ends of this node: somebody may have removed the filter of their block.
    fn are_ours(&self, netlink: &mut Netlink, indexes: &[u32]) -> io::Result<bool> {
        let answers = netlink.batch(indexes.iter().map(|index| link::get_at(*index)).collect())?;
        for answer in answers {
            let foreign = link::found(answer)?.is_some_and(|link| {
                Managed::recognise(&self.scope, link.index, &link.name, link.alias.as_deref()).is_none()
            });
            if foreign {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts interfaces into blocks, and the filter on those that are new; one result each. `AlreadyExists`: somebody
    /// else's qdisc is at the interface.
    pub(super) fn attach(
        &self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        indexes: &[u32],
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut members = None;
        let mut places: BTreeMap<u32, Option<Place>> = BTreeMap::new();
        for index in indexes {
            if let Entry::Vacant(home) = places.entry(index / MEMBERS) {
                home.insert(self.choose(netlink, *index, &mut members)?);
            }
        }
        let place = |index: &u32| places.get(&(index / MEMBERS)).copied().flatten();
        let group = |index: &u32| {
            let Some(place) = place(index) else {
                return Vec::new();
            };
            let join = RouteNetlinkMessage::NewQueueDiscipline(qdisc(*index, place.block));
            let join = Request::new(join, NLM_F_CREATE | NLM_F_EXCL);
            if place.has_filter {
                return vec![join];
            }
            // In the same buffer as what makes the block, so that no block of ours is ever without its filter. After
            // the first it is there already.
            let filter = tc::filter(at_block(place.block), Some((program, &self.filter)));
            let filter = RouteNetlinkMessage::NewTrafficFilter(filter);
            vec![join, Request::new(filter, NLM_F_CREATE | NLM_F_EXCL)]
        };
        let answers = netlink.groups(indexes.iter().map(group).collect())?;
        let mut results = Vec::with_capacity(answers.len());
        for (index, answers) in indexes.iter().zip(answers) {
            results.push(match place(index) {
                Some(place) => self.joined(netlink, *index, place.block, answers)?,
                None => Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "every block number is in use",
                )),
            });
        }
        Ok(results)
    }

    /// What the answers to an interface's joining `block` say.
    fn joined(
        &self,
        netlink: &mut Netlink,
        index: u32,
        block: u32,
        answers: Vec<Answer>,
    ) -> io::Result<io::Result<()>> {
        let exists = |error: &io::Error| error.raw_os_error() == Some(libc::EEXIST);
        let mut answers = answers.into_iter();
        let joined = match answers.next() {
            Some(Err(error)) if exists(&error) => match self.members(netlink, &[index])?.as_slice() {
                [Some(at)] if *at == block => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            },
            Some(other) => other.map(drop),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        };
        let filtered = match answers.next() {
            Some(Err(error)) if !exists(&error) => Err(error),
            _ => Ok(()),
        };
        Ok(joined.and(filtered))
    }

    /// The block that each of these interfaces is in.
    fn members(&self, netlink: &mut Netlink, indexes: &[u32]) -> io::Result<Vec<Option<u32>>> {
        let get = |index: &u32| {
            let mut query = tc::message(*index);
            query.header.parent = TcHandle::INGRESS;
            // Older kernels tell only the listeners, unless asked for an echo.
            Request::new(RouteNetlinkMessage::GetQueueDiscipline(query), NLM_F_ECHO)
        };
        let answers = netlink.batch(indexes.iter().map(get).collect())?;
        let block = |answer: Answer| match answer {
            Ok(messages) => Ok(messages.iter().find_map(ingress_block)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(None),
                _ => Err(error),
            },
        };
        answers.into_iter().map(block).collect()
    }

    /// Which of these interfaces are in a block of ours. From `MANY` on, one dump of all costs less.
    pub(super) fn attached(&self, netlink: &mut Netlink, indexes: &[u32]) -> io::Result<BTreeSet<u32>> {
        const MANY: usize = 1024;
        let ours = self.ours(netlink)?;
        if ours.is_empty() || indexes.is_empty() {
            return Ok(BTreeSet::new());
        }
        if indexes.len() < MANY {
            let blocks = self.members(netlink, indexes)?;
            let members = indexes.iter().zip(blocks);
            let is_in = |block: Option<u32>| block.is_some_and(|block| ours.contains(&block));
            return Ok(members
                .filter(|(_, block)| is_in(*block))
                .map(|(index, _)| *index)
                .collect());
        }
        let query = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let found = netlink.dump(&query, |message| {
            let block = ingress_block(&message)?;
            let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = message else {
                return None;
            };
            ours.contains(&block)
                .then_some(u32::try_from(qdisc.header.index).ok()?)
        })?;
        Ok(found.into_iter().collect())
    }

    /// Takes an interface out of its block, if it is in one of ours.
    pub(super) fn detach(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        let ours = self.ours(netlink)?;
        match self.members(netlink, &[index])?[..] {
            [Some(block)] if ours.contains(&block) => {
                let leave = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index, block));
                netlink.one(leave, 0).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Puts another program in the place of the filter's; no packet sees neither or both.
    pub(super) fn replace(&self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
        for block in self.ours(netlink)? {
            let filter = tc::filter(at_block(block), Some((program, &self.filter)));
            netlink.one(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)?;
        }
        Ok(())
    }
}

/// By block: the indexes of its members.
type Members = BTreeMap<u32, Vec<u32>>;

fn members_of_blocks(netlink: &mut Netlink) -> io::Result<Members> {
    let query = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let found = netlink.dump(&query, |message| match message {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => {
            Some((u32::try_from(qdisc.header.index).ok()?, blocks_of(&qdisc)))
        }
        _ => None,
    });
    let mut members = Members::new();
    for (index, blocks) in found? {
        for block in blocks {
            members.entry(block).or_default().push(index);
        }
    }
    Ok(members)
}

fn is_without_filters(netlink: &mut Netlink, block: u32) -> io::Result<bool> {
    let query = RouteNetlinkMessage::GetTrafficFilter(at_block(block));
    let filters = netlink.dump(&query, |message| {
        matches!(message, RouteNetlinkMessage::NewTrafficFilter(_)).then_some(())
    });
    Ok(filters?.is_empty())
}

#[cfg(test)]
mod tests {
    use dataplane_common::limits::OWN_INDEX_BASE;

    use super::*;

    #[test]
    fn a_node_always_tries_the_same_numbers_and_all_are_recognisable() {
        let numbers = |node| Blocks::new(node).numbers().collect::<Vec<_>>();
        assert_eq!(numbers("n1"), numbers("n1"));
        assert_ne!(numbers("n1"), numbers("n2"));
        assert!(numbers("n1").iter().all(|number| number >> 16 == 0x746c));
    }

    #[test]
    fn neighbours_share_a_block_and_every_number_is_tried_for_each() {
        let blocks = Blocks::new("n1");
        let first = |index| blocks.numbers_for(index).next();
        assert_eq!(first(OWN_INDEX_BASE), first(OWN_INDEX_BASE + MEMBERS - 1));
        assert_ne!(first(OWN_INDEX_BASE), first(OWN_INDEX_BASE + MEMBERS));
        let all: BTreeSet<u32> = blocks.numbers().collect();
        assert_eq!(all.len(), NUMBERS as usize);
        for index in [1, 5 * MEMBERS, OWN_INDEX_BASE] {
            assert_eq!(blocks.numbers_for(index).collect::<BTreeSet<_>>(), all);
        }
    }
}
