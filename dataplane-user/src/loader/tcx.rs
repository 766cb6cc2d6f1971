//! Tcx links (Linux 6.6 on), pinned one file per interface.
//!
//! The program goes behind all others at the hook. On an interface that somebody else uses too, their programs keep
//! seeing every packet and their verdicts keep counting; only what they pass on with `TCX_NEXT` enters the wire.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use super::{attach::Attacher, pins::LinkPins};
use crate::{desired::IfName, netlink::socket::Netlink, sys::bpf};

/// Attaches by tcx links.
pub(crate) struct Tcx {
    pub(crate) pins: LinkPins,
}

impl Tcx {
    /// The interface that the link pinned under this name is on: `None` without a pin, 0 when it is gone.
    fn pinned_at(&self, name: &IfName) -> io::Result<Option<u32>> {
        match bpf::get_pinned(&self.pins.path(name)) {
            Ok(link) => bpf::tcx_ifindex(link.as_fd()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn attach_one(&self, program: BorrowedFd<'_>, name: &IfName, index: u32) -> io::Result<()> {
        let path = self.pins.path(name);
        let link = bpf::attach_tcx(program, index)?;
        match bpf::pin(link.as_fd(), &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        // A pin of an interface of that name that is gone; or it is attached already, and the new link goes unused.
        if self.pinned_at(name)? == Some(index) {
            return Ok(());
        }
        self.pins.remove(name)?;
        bpf::pin(link.as_fd(), &path)
    }
}

impl Attacher for Tcx {
    fn name(&self) -> &'static str {
        "tcx"
    }

    fn attach(
        &mut self,
        _netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        interfaces: &[(&IfName, u32)],
    ) -> Vec<io::Result<()>> {
        interfaces
            .iter()
            .map(|(name, index)| self.attach_one(program, name, *index))
            .collect()
    }

    fn detach(&mut self, _netlink: &mut Netlink, interfaces: &[&IfName]) -> Vec<io::Result<()>> {
        // The pin is the link's only reference: without it the kernel takes the program off.
        interfaces.iter().map(|name| self.pins.remove(name)).collect()
    }

    fn is_attached(&self, _netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<bool> {
        Ok(self.pinned_at(name)? == Some(index))
    }

    fn all(&self) -> io::Result<Vec<IfName>> {
        self.pins.all()
    }

    fn all_of(&self, interfaces: &mut dyn Iterator<Item = &IfName>) -> Vec<IfName> {
        interfaces
            .filter(|name| self.pins.exists(name))
            .cloned()
            .collect()
    }

    fn forget(&mut self, interface: &IfName) -> io::Result<()> {
        self.pins.remove(interface)
    }

    fn replace(&mut self, _netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
        for name in self.pins.all()? {
            let link = bpf::get_pinned(&self.pins.path(&name))?;
            // A link whose interface is gone takes no program; the first full pass removes it.
            if bpf::tcx_ifindex(link.as_fd())?.is_some_and(|index| index != 0) {
                bpf::update_link(link.as_fd(), program)?;
            }
        }
        Ok(())
    }
}
