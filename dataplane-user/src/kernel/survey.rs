//! Listing what is ours in parts, so that the agent can do something else in between.

use std::{collections::BTreeSet, io};

use super::{Kernel, indexes::Indexes, unreadable};
use crate::{
    datapath::ObserveError,
    desired::IfName,
    netlink::{
        link,
        socket::{Dump, Netlink},
    },
    observed::Survey,
    ownership::Managed,
};

/// How much of the dump of interfaces one part reads: some dozens of interfaces each.
const READS: usize = 24;

/// A survey that is under way. Its socket holds the kernel's place in the dump.
pub(super) struct Walk {
    netlink: Netlink,
    dump: Dump,
    /// Interfaces that are ours.
    ours: Vec<(IfName, u32)>,
    /// All others.
    others: Vec<(IfName, u32)>,
    /// Whether one of those is in the group that interfaces are deleted in.
    strangers: bool,
    /// Indexes of interfaces that were made after the dump began.
    pub(super) made: Vec<u32>,
}

impl Walk {
    fn begin() -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        Ok(Self {
            dump: netlink.begin_dump(&link::every())?,
            netlink,
            ours: Vec::new(),
            others: Vec::new(),
            strangers: false,
            made: Vec::new(),
        })
    }
}

impl Kernel {
    pub(super) fn survey_part(&mut self) -> Result<Option<Survey>, ObserveError> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => Walk::begin().map_err(unreadable("interfaces"))?,
        };
        for _ in 0..READS {
            if !self.walk_on(&mut walk).map_err(unreadable("interfaces"))? {
                return self.end_survey(walk).map(Some);
            }
        }
        self.walk = Some(walk);
        Ok(None)
    }

    /// Reads on in the dump, and says whether there is more.
    fn walk_on(&self, walk: &mut Walk) -> io::Result<bool> {
        let (scope, group) = (&self.scope, self.group);
        let Walk {
            netlink,
            dump,
            ours,
            others,
            strangers,
            ..
        } = walk;
        netlink.read_dump(dump, &mut |message| {
            let Some(link) = link::read(&message) else { return };
            let managed = Managed::recognise(scope, link.index, &link.name, link.alias.as_deref());
            if managed.is_some() {
                ours.push((link.name, link.index));
            } else {
                *strangers |= group == Some(link.group);
                others.push((link.name, link.index));
            }
        })
    }

    /// From here on nothing happens in between: what is read now is as it is.
    fn end_survey(&mut self, walk: Walk) -> Result<Survey, ObserveError> {
        let positions = self.loaded.positions.all().map_err(unreadable("positions"))?;
        let splits = self.loaded.splits.all().map_err(unreadable("splits"))?;
        let recorded = self
            .loaded
            .attachments
            .recorded()
            .map_err(unreadable("attachments"))?;
        let mut survey = Survey {
            interfaces: walk.ours,
            positions: positions.into_iter().collect(),
            splits: splits.into_iter().collect(),
            attachments: recorded.into_iter().collect::<BTreeSet<_>>(),
            incomplete: self.strays_anywhere,
        };
        if walk.strangers {
            self.group = None;
        }
        let seen = survey
            .interfaces
            .iter()
            .chain(&walk.others)
            .map(|(_, index)| *index);
        let used = seen.chain(walk.made).chain(survey.positions.keys().copied());
        self.indexes = Indexes::new(self.max_wires, used);
        let concern = |(name, index): &(IfName, u32)| {
            survey.positions.contains_key(index) || survey.attachments.contains(name)
        };
        let others: Vec<_> = walk.others.into_iter().filter(concern).collect();
        survey.interfaces.extend(others);
        Ok(survey)
    }
}
