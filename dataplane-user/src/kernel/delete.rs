//! Deleting veth pairs.

use std::io;

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    netlink::link,
    ownership::Managed,
};

impl Kernel {
    pub(super) fn delete_links(&mut self, links: &[&Managed]) -> Results<()> {
        let deleted = match self.delete_grouped(links) {
            Ok(()) => links.iter().map(|_| Ok(())).collect(),
            Err(_) => self.delete_singly(links),
        };
        let forget = |(link, deleted): (&&Managed, io::Result<()>)| {
            if deleted.is_ok() {
                self.indexes.release(link.index());
            }
            let forgotten = deleted.and_then(|()| self.loaded.attachments.forget(link.name()));
            forgotten.map_err(|error| OpError::kernel(format!("cannot delete {}: {error}", link.name())))
        };
        links.iter().zip(deleted).map(forget).collect()
    }

    /// As a group, for which the kernel waits once, and not once for each; and nobody waits for the kernel.
    fn delete_grouped(&mut self, links: &[&Managed]) -> io::Result<()> {
        let group = match self.group {
            Some(group) => group,
            None => link::unused_group(&mut self.netlink)?,
        };
        self.group = Some(group);
        match link::join_group(&mut self.netlink, group, links)? {
            Some(member) => self.reaper.delete(&mut self.netlink, group, member),
            None => Ok(()),
        }
    }

    /// One after the other, each with its own result.
    fn delete_singly(&mut self, links: &[&Managed]) -> Vec<io::Result<()>> {
        let requests = links.iter().map(|link| link::delete(link)).collect();
        let answers = match self.netlink.batch(requests) {
            Ok(answers) => answers,
            Err(error) => {
                return links
                    .iter()
                    .map(|_| Err(io::Error::new(error.kind(), error.to_string())))
                    .collect();
            }
        };
        let gone = |answer: io::Result<_>| match answer {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(error),
            _ => Ok(()),
        };
        answers.into_iter().map(gone).collect()
    }
}
