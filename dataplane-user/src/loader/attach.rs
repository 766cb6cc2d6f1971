//! The two ways to attach, behind one trait.

use std::{io, os::fd::BorrowedFd};

use crate::{desired::IfName, netlink::socket::Netlink};

/// Attaches a program to the ingress of interfaces of the agent's namespace, so that it stays when the agent ends.
pub(crate) trait Attacher: Send {
    /// As operators call it.
    fn name(&self) -> &'static str;

    /// Attaches, by name and index; one result each. Where it is attached already nothing changes.
    fn attach(
        &mut self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
        interfaces: &[(&IfName, u32)],
    ) -> Vec<io::Result<()>>;

    /// Detaches; one result each. Where it is not attached, or the interface is gone, only the record goes.
    fn detach(&mut self, netlink: &mut Netlink, interfaces: &[&IfName]) -> Vec<io::Result<()>>;

    /// Whether it is attached to this interface: name and index, for names come back with other interfaces.
    fn is_attached(&self, netlink: &mut Netlink, name: &IfName, index: u32) -> io::Result<bool>;

    /// Every interface with a record of an attachment, those that are gone included.
    fn all(&self) -> io::Result<Vec<IfName>>;

    /// Which of these interfaces have a record.
    fn all_of(&self, interfaces: &mut dyn Iterator<Item = &IfName>) -> Vec<IfName>;

    /// Removes the record of an interface that is gone, and with it the attachment.
    fn forget(&mut self, interface: &IfName) -> io::Result<()>;

    /// Puts another program in the place of the attached one everywhere; no packet sees neither or both.
    fn replace(&mut self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> io::Result<()>;
}
