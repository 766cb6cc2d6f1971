//! Deleting veth pairs.

use std::io;

use super::Kernel;
use crate::{
    datapath::{OpError, Results},
    netlink::link,
    ownership::Managed,
};

/// From this many on, a group is deleted: the kernel waits for a grace period once, not once for each.
const GROUP_FROM: usize = 2;

impl Kernel {
    pub(super) fn delete_links(&mut self, links: &[&Managed]) -> Results<()> {
        let grouped = links.len() >= GROUP_FROM && self.delete_grouped(links).is_ok();
        let deleted = if grouped {
            links.iter().map(|_| Ok(())).collect()
        } else {
            self.delete_singly(links)
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

    fn delete_grouped(&mut self, links: &[&Managed]) -> io::Result<()> {
        let group = match self.group {
            Some(group) => group,
            None => link::unused_group(&mut self.netlink)?,
        };
        self.group = Some(group);
        link::delete_as_group(&mut self.netlink, group, links)
    }

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
