//! Network laboratory: namespaces, links, frames and traffic on this machine's kernel, cleaned up by guards.
//!
//! Every kernel object made here belongs to a guard that removes it on drop, and carries a name that begins with
//! `tl-` and is unique to this process, so that several laboratories run on one machine without touching each
//! other or anything else. [`Leftovers`] proves that nothing remained.
//!
//! Errors are `anyhow`: the laboratory serves tests and benchmarks only.
#![deny(unsafe_code)]

pub mod frame;

mod bpffs;
mod counts;
mod echo;
mod leftovers;
mod mac;
mod name;
mod net;
mod netlink;
mod netns;
mod packet;
mod ping;
mod process;
mod rounds;
mod route;
mod rule;
mod setup;
mod sys;
mod tcp;
mod time;
mod udp;

pub use bpffs::BpfFs;
pub use counts::{Count, Counts};
pub use echo::{EchoReport, EchoStream, Responder, ResponderId};
pub use leftovers::{Leftovers, Watch};
pub use mac::Mac;
pub use name::{PREFIX, unique_name};
pub use net::{Link, Net};
pub use netns::{NETNS_DIR, NetNs};
pub use packet::{FrameSocket, Gso, GsoKind, Received};
pub use ping::{PingPlan, PingReport, ping};
pub use process::{Process, log_to};
pub use rounds::{RoundTrips, connect_request_response, round_trips};
pub use route::{RouteQuery, RouteTaken, Rule};
pub use tcp::{TcpPlan, TcpReport, TcpTransfer};
pub use time::{ENV_SLOW, eventually, slow, within};
pub use udp::{UdpPlan, UdpReport, UdpStream};
