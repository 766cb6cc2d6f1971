//! Network laboratory: namespaces, links, frames and traffic on this machine's kernel, cleaned up by guards.
//!
//! Every kernel object made here belongs to a guard that removes it on drop, and carries a name that begins with
//! `tl-` and is unique to this process, so that several laboratories run on one machine without touching each
//! other or anything else. [`Leftovers`] proves that nothing remained.
//!
//! Errors are `anyhow`: the laboratory serves tests and benchmarks only.
#![deny(unsafe_code)]

mod bpffs;
mod leftovers;
mod mac;
mod name;
mod net;
mod netlink;
mod netns;
mod process;
mod time;

pub use bpffs::BpfFs;
pub use leftovers::{Leftovers, Watch};
pub use mac::Mac;
pub use name::{PREFIX, unique_name};
pub use net::{Link, Net};
pub use netns::{NETNS_DIR, NetNs};
pub use process::{Process, log_to};
pub use time::{ENV_SLOW, eventually, slow, within};
