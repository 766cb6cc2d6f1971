//! Which interface is attached to by which means.
//!
//! Host ends, which are ours, share a block: joining it costs the kernel no waiting, and thousands of wires a
//! second can be made. Other interfaces get a tcx link, which orders us behind other owners, or a clsact filter of
//! their own where the kernel has no tcx. Whatever an earlier agent attached by other means counts as attached.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{Backend, block::Blocks, clsact::Clsact, pins::LinkPins, tcx::Tcx};
use crate::{
    desired::IfName,
    netlink::{link, socket::Netlink},
    ownership::is_host_name,
};

/// Attaches the program to the ingress of interfaces of the agent's namespace, so that it stays when the agent ends.
pub(crate) struct Attachments {
    backend: Backend,
    pins: LinkPins,
    blocks: Blocks,
    tcx: Tcx,
    clsact: Clsact,
}

impl Attachments {
    /// `backend` is what this kernel has: [`Backend::Auto`] only where there is tcx.
    pub(super) fn new(backend: Backend, node: &str, pins: &LinkPins) -> Self {
        Self {
            backend,
            pins: pins.clone(),
            blocks: Blocks::new(node),
            tcx: Tcx { pins: pins.clone() },
            clsact: Clsact { pins: pins.clone() },
        }
    }

    /// As operators call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self.backend {
            Backend::Auto => "block+tcx",
            Backend::Tcx => "tcx",
            Backend::Clsact => "block+clsact",
        }
    }

    /// Attaches, by name and index; one result each. Where it is attached already nothing changes.
    pub(crate) fn attach(
        &self,
        netlink: &mut Netlink,
        program: &OwnedFd,
        interfaces: &[(&IfName, u32)],
    ) -> Vec<io::Result<()>> {
        let shares = |name: &IfName| self.backend != Backend::Tcx && is_host_name(name.as_str());
        let members: Vec<u32> = interfaces
            .iter()
            .filter(|(name, _)| shares(name))
            .map(|(_, index)| *index)
            .collect();
        let joined = if members.is_empty() {
            Ok(Vec::new())
        } else {
            self.blocks.attach(netlink, program.as_fd(), &members)
        };
        let mut joined = match joined {
            Ok(joined) => joined.into_iter(),
            Err(error) => {
                let refused = || Err(io::Error::new(error.kind(), error.to_string()));
                return interfaces.iter().map(|_| refused()).collect();
            }
        };
        let mut one = |(name, index): &(&IfName, u32)| {
            if shares(name) {
                match joined.next() {
                    // Somebody hung a qdisc of their own there: it stays.
                    Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Some(other) => return other,
                    None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                }
            }
            self.attach_alone(netlink, program.as_fd(), name, *index)
        };
        interfaces.iter().map(&mut one).collect()
    }

    /// Puts host ends that were made just now, and are not up yet, on the filter block, and says which are on it now.
    /// The others, if any, are for [`Self::attach`].
    pub(crate) fn join(
        &self,
        netlink: &mut Netlink,
        program: &OwnedFd,
        fresh: &[(&IfName, u32)],
    ) -> BTreeSet<u32> {
        if self.backend == Backend::Tcx || fresh.is_empty() {
            return BTreeSet::new();
        }
        let indexes: Vec<u32> = fresh.iter().map(|(_, index)| *index).collect();
        let Ok(joined) = self.blocks.attach(netlink, program.as_fd(), &indexes) else {
            return BTreeSet::new();
        };
        let joined = indexes.into_iter().zip(joined);
        joined
            .filter_map(|(index, joined)| joined.is_ok().then_some(index))
            .collect()
    }

    fn attach_alone(
        &self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        name: &IfName,
        index: u32,
    ) -> io::Result<()> {
        match self.backend {
            Backend::Auto | Backend::Tcx => self.tcx.attach(program, name, index),
            Backend::Clsact => self.clsact.attach(netlink, program, name, index),
        }
    }

    /// Puts a tcx link in front of the block at host ends, which makes each packet cheaper and costs the kernel a
    /// grace period each, now and when the end goes. One result each: whether there is one now.
    pub(crate) fn promote(&self, program: &OwnedFd, interfaces: &[(&IfName, u32)]) -> Vec<io::Result<bool>> {
        let one = |(name, index): &(&IfName, u32)| {
            if self.backend != Backend::Auto {
                return Ok(false);
            }
            if !self.tcx.is_attached(name, *index)? {
                self.tcx.attach(program.as_fd(), name, *index)?;
            }
            Ok(true)
        };
        interfaces.iter().map(one).collect()
    }

    /// Detaches; one result each. Where it is not attached, or the interface is gone, only the record goes.
    pub(crate) fn detach(&self, netlink: &mut Netlink, interfaces: &[&IfName]) -> Vec<io::Result<()>> {
        let mut one = |name: &&IfName| {
            self.clsact.detach(netlink, name)?;
            if !is_host_name(name.as_str()) {
                return Ok(());
            }
            match link::found(netlink.batch(vec![link::get(name)])?.remove(0))? {
                Some(link) => self.blocks.detach(netlink, link.index),
                None => Ok(()),
            }
        };
        interfaces.iter().map(&mut one).collect()
    }

    /// The indexes among these interfaces (by name and index, for names come back with other interfaces) at which it
    /// is attached.
    pub(crate) fn attached(
        &self,
        netlink: &mut Netlink,
        interfaces: &[(&IfName, u32)],
    ) -> io::Result<BTreeSet<u32>> {
        let ends: Vec<u32> = interfaces
            .iter()
            .filter(|(name, _)| is_host_name(name.as_str()))
            .map(|(_, index)| *index)
            .collect();
        let mut attached = self.blocks.attached(netlink, &ends)?;
        for (name, index) in interfaces {
            if !attached.contains(index)
                && (self.tcx.is_attached(name, *index)? || self.clsact.is_attached(netlink, name, *index)?)
            {
                attached.insert(*index);
            }
        }
        Ok(attached)
    }

    /// Every interface with a record of an attachment, those that are gone included.
    pub(crate) fn recorded(&self) -> io::Result<Vec<IfName>> {
        self.pins.all()
    }

    /// Which of these interfaces have a record.
    pub(crate) fn recorded_of<'a>(&self, interfaces: impl Iterator<Item = &'a IfName>) -> Vec<IfName> {
        interfaces
            .filter(|name| self.pins.exists(name))
            .cloned()
            .collect()
    }

    /// Removes the record of an interface that is gone, and with it the attachment.
    pub(crate) fn forget(&self, interface: &IfName) -> io::Result<()> {
        self.pins.remove(interface)
    }

    /// Puts another program in the place of the attached one everywhere; no packet sees neither or both.
    pub(crate) fn replace(&self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
        self.blocks.replace(netlink, program)?;
        self.tcx.replace(program)?;
        self.clsact.replace(netlink, program)
    }
}
