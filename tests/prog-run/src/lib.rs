//! Test floor 2: frames in, verdict and counter deltas of each kernel program, on the real kernel.
//!
//! [`Loaded`] is a private, unpinned copy of the programs and maps; [`Loaded::run`] gives one frame to
//! `wire_ingress` by `BPF_PROG_TEST_RUN`. The program thinks that the frame came in at the interface of the
//! running thread's namespace that the caller names.
#![forbid(unsafe_code)]

mod context;
mod event;
mod loaded;

pub use loaded::{COOKIE, Counters, Loaded, Run};

/// The program takes the frame away: `TC_ACT_REDIRECT`.
pub const REDIRECT: u32 = 7;
/// The program drops the frame: `TC_ACT_SHOT`.
pub const SHOT: u32 = 2;
