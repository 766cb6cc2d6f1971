//! The node agent: loads the kernel programs, keeps maps and interfaces as planned, serves workloads.
//!
//! Two halves. The *datapath* half is synchronous: [`desired`] is what control planned, [`observed`] what the kernel
//! holds, [`diff`] makes operations ([`op`]) of the difference, one executor ([`apply`]) carries them out through a
//! [`datapath::Datapath`], and [`reconcile`] puts them together. The *agent* half is asynchronous: the session with
//! control, the local API for workloads, metrics and health.

#![deny(unsafe_code)]

pub mod agent;
pub mod apply;
mod busy;
mod circuit;
pub mod datapath;
pub mod desired;
pub mod diff;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod kernel;
mod linger;
pub mod liveness;
pub mod loader;
pub mod maps;
mod netlink;
pub mod netns;
mod object;
pub mod observed;
pub mod op;
pub mod outcome;
pub mod ownership;
mod policy;
pub mod reconcile;
pub mod slots;
mod sys;
mod view;

pub use netlink::monitor::{LinkMonitor, LinkNotice};
pub use object::OBJECT;
