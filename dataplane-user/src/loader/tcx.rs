//! Tcx links (Linux 6.6 on), pinned one file per interface.
//!
//! The program goes behind all others at the hook. On an interface that somebody else uses too, their programs keep
//! seeing every packet and their verdicts keep counting; only what they pass on with `TCX_NEXT` enters the wire.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use super::pins::LinkPins;
use crate::{desired::IfName, sys::bpf};

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

    /// Attaches, by name and index. Where it is attached already nothing changes.
    pub(super) fn attach(&self, program: BorrowedFd<'_>, name: &IfName, index: u32) -> io::Result<()> {
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

    /// Whether it is attached to this interface: name and index, for names come back with other interfaces.
    pub(super) fn is_attached(&self, name: &IfName, index: u32) -> io::Result<bool> {
        Ok(self.pinned_at(name)? == Some(index))
    }

    /// Puts another program in the place of the attached one everywhere; no packet sees neither or both.
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        for name in self.pins.all()? {
            if self.pins.is_symlink(&name) {
                continue;
            }
            let link = bpf::get_pinned(&self.pins.path(&name))?;
            // A link whose interface is gone takes no program; the first full pass removes it.
            if bpf::tcx_ifindex(link.as_fd())?.is_some_and(|index| index != 0) {
                bpf::update_link(link.as_fd(), program)?;
            }
        }
        Ok(())
    }
}
