//! Brings the kernel programs in: checks the machine, opens or makes the pinned maps, loads, and puts the program
//! under what earlier agents attached.

mod attachments;
mod block;
mod clsact;
mod config;
mod object;
mod pins;
mod preflight;
mod tc;
mod tcx;
#[cfg(feature = "trace")]
mod trace;

pub use config::{Backend, Config, LoadError};

pub(crate) use object::{Loaded, load};
