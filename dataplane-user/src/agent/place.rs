//! Where a workload is.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    desired::{IfName, NetnsId, NetnsRef},
    netns,
};

/// Where a workload is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a network namespace.
    Netns(NetnsRef),
    /// Behind an existing interface of the node.
    Interface(IfName),
}

impl Place {
    /// Whether it is there at this moment. Reads files: call it where blocking is allowed.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Netns(netns) => netns::find(netns).is_ok(),
            Self::Interface(name) => nix::net::if_::if_nametoindex(name.as_str()).is_ok(),
        }
    }
}

/// The identity of what lies at a namespace's path at this moment.
pub(crate) fn lies_at(path: &Path) -> Option<NetnsId> {
    let metadata = fs::metadata(path).ok()?;
    Some(NetnsId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}
