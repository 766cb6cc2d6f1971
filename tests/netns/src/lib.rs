//! Test floor 3: the whole product on the real kernel.
//!
//! A [`Node`] is the real `tieline` program in a namespace of its own, with its own folders and bpffs; workloads are
//! namespaces; calls go through the node's sockets by [`Api`]. [`Foreign`] plants what belongs to somebody else and
//! proves that it was not touched. A [`Scene`] is a node with its workloads, at whose end nothing remains; a wire of it is
//! [`Watched`] while things happen to it. [`Kernel`] is what the kernel holds of the node's wires, read from its pins.
#![forbid(unsafe_code)]

mod api;
mod binary;
mod foreign;
mod kernel;
mod monitor;
mod node;
mod route;
mod router;
mod scene;
mod seed;
mod watched;
mod wire;

pub use api::{Api, Call};
pub use foreign::Foreign;
pub use kernel::Kernel;
pub use monitor::Monitor;
pub use node::{Mode, Node};
pub use route::assert_path;
pub use router::{Attested, Router, let_route};
pub use scene::{PORT, Scene, Server};
pub use seed::seed;
pub use watched::{Face, Noticed, Watched};
pub use wire::{Wire, endpoint, netns_url, request, service, with, with_interface, with_lifetime};
