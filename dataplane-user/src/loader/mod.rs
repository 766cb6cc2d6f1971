//! Brings the kernel programs in: checks the machine, opens or makes the pinned maps, loads, and puts the program
//! under what earlier agents attached.

mod attach;
mod clsact;
mod config;
mod object;
mod pins;
mod preflight;
mod tcx;

pub use config::{Backend, Config, LoadError};

pub(crate) use object::{Loaded, load};
