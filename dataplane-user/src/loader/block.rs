//! One filter for all host ends of a node: they share a *block*, on which our program is the filter.
//!
//! An interface joins with one request, for which the kernel waits for nobody, and leaves with its end: there is
//! nothing to pin and nothing to record. The block exists as long as an interface is in it. Its number comes from the
//! node's name, and the filter on it carries that name, so every agent of the node finds it by looking. A block
//! that somebody else uses is left alone and the next number taken.

use std::{collections::BTreeSet, io, os::fd::BorrowedFd};

use dataplane_common::names;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
};

use super::tc;
use crate::netlink::socket::{Answer, Netlink, Request};

/// The smallest number tried; `tl` in front, for people to recognise.
const FIRST: u32 = 0x746c_0000;
/// How many numbers are tried. Others in use are those of agents of other nodes in this namespace, or chance.
const TRIES: u32 = 8;
/// `TCA_INGRESS_BLOCK` and `TCA_EGRESS_BLOCK`, which share their numbers.
const INGRESS_BLOCK: u16 = 13;
const EGRESS_BLOCK: u16 = 14;

/// The node's blocks.
pub(super) struct Blocks {
    first: u32,
    filter: String,
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
            first: FIRST | hash & 0xffff,
            filter: format!("tieline/{node}/{}", names::PROGRAM_WIRE_INGRESS),
        }
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        let first = self.first;
        (0..TRIES).map(move |i| FIRST | first.wrapping_add(i) & 0xffff)
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

    /// The block for new members, and whether our filter is on it: the first that is ours; else the first that nobody
    /// but `members` is in, and on which no filter is.
    fn choose(&self, netlink: &mut Netlink, members: &BTreeSet<u32>) -> io::Result<Option<(u32, bool)>> {
        if let Some(ours) = self.ours(netlink)?.first() {
            return Ok(Some((*ours, true)));
        }
        let query = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let taken: BTreeSet<u32> = netlink
            .dump(&query, |message| {
                let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = message else {
                    return None;
                };
                let member = u32::try_from(qdisc.header.index).is_ok_and(|index| members.contains(&index));
                (!member).then(|| blocks_of(&qdisc))
            })?
            .into_iter()
            .flatten()
            .collect();
        for number in self.numbers().filter(|number| !taken.contains(number)) {
            let query = RouteNetlinkMessage::GetTrafficFilter(at_block(number));
            let filters = netlink.dump(&query, |message| {
                matches!(message, RouteNetlinkMessage::NewTrafficFilter(_)).then_some(())
            });
            if filters?.is_empty() {
                return Ok(Some((number, false)));
            }
        }
        Ok(None)
    }

    /// Puts interfaces into the block, and the filter on it if it is new; one result each. `AlreadyExists`: somebody
    /// else's qdisc is at the interface.
    pub(super) fn attach(
        &self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        indexes: &[u32],
    ) -> io::Result<Vec<io::Result<()>>> {
        let Some((block, has_filter)) = self.choose(netlink, &indexes.iter().copied().collect())? else {
            let none = || {
                Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "every block number is in use",
                ))
            };
            return Ok(indexes.iter().map(|_| none()).collect());
        };
        let group = |index: &u32| {
            let join = RouteNetlinkMessage::NewQueueDiscipline(qdisc(*index, block));
            // In the same buffer as what makes the block, so that no block of ours is ever without its filter. After
            // the first it is there already.
            let filter = tc::filter(at_block(block), Some((program, &self.filter)));
            vec![
                Request::new(join, NLM_F_CREATE | NLM_F_EXCL),
                Request::new(
                    RouteNetlinkMessage::NewTrafficFilter(filter),
                    NLM_F_CREATE | NLM_F_EXCL,
                ),
            ]
        };
        let length = if has_filter { 1 } else { 2 };
        let groups = indexes
            .iter()
            .map(|index| group(index).into_iter().take(length).collect());
        let answers = netlink.groups(groups.collect())?;
        let exists = |error: &io::Error| error.raw_os_error() == Some(libc::EEXIST);
        let mut results = Vec::with_capacity(answers.len());
        for (index, answers) in indexes.iter().zip(answers) {
            let mut answers = answers.into_iter();
            let joined = match answers.next() {
                Some(Err(error)) if exists(&error) => match self.members(netlink, &[*index])?.as_slice() {
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
            results.push(joined.and(filtered));
        }
        Ok(results)
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

/// The header that names a block in place of an interface.
fn at_block(number: u32) -> TcMessage {
    let mut message = TcMessage::with_index(TcHeader::TCM_IFINDEX_MAGIC_BLOCK.cast_signed());
    message.header.parent = TcHandle::from(number);
    message
}

fn qdisc(index: u32, block: u32) -> TcMessage {
    let mut qdisc = tc::qdisc(index, "ingress");
    let block = block.to_ne_bytes().to_vec();
    qdisc
        .attributes
        .push(TcAttribute::Other(netlink_packet_core::DefaultNla::new(
            INGRESS_BLOCK,
            block,
        )));
    qdisc
}

/// The numbers of all blocks that a qdisc is bound to.
fn blocks_of(qdisc: &TcMessage) -> Vec<u32> {
    numbered(qdisc, &[INGRESS_BLOCK, EGRESS_BLOCK])
}

fn ingress_block(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => numbered(qdisc, &[INGRESS_BLOCK]).first().copied(),
        _ => None,
    }
}

fn numbered(qdisc: &TcMessage, kinds: &[u16]) -> Vec<u32> {
    use netlink_packet_core::{Emitable as _, Nla as _};
    let value = |attribute: &TcAttribute| match attribute {
        TcAttribute::Other(nla) if kinds.contains(&nla.kind()) => {
            let mut bytes = vec![0; nla.buffer_len()];
            nla.emit(&mut bytes);
            // An attribute is its length and kind, then the number.
            bytes
                .get(4..)?
                .first_chunk::<4>()
                .map(|bytes| u32::from_ne_bytes(*bytes))
        }
        _ => None,
    };
    qdisc.attributes.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_always_tries_the_same_numbers_and_all_are_recognisable() {
        let numbers = |node| Blocks::new(node).numbers().collect::<Vec<_>>();
        assert_eq!(numbers("n1"), numbers("n1"));
        assert_ne!(numbers("n1"), numbers("n2"));
        assert!(numbers("n1").iter().all(|number| number >> 16 == 0x746c));
    }

    #[test]
    fn the_number_of_a_block_is_read_from_a_qdisc() {
        let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(7, 0x746c_0102));
        assert_eq!(ingress_block(&message), Some(0x746c_0102));
        let without = RouteNetlinkMessage::NewQueueDiscipline(tc::qdisc(7, "ingress"));
        assert_eq!(ingress_block(&without), None);
    }
}
