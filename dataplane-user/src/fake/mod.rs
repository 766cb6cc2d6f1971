//! The datapath in memory, for tests: the same answers as the kernel's, a stable text of its state, and in
//! [`Faulty`] a wrapper that refuses operations of any datapath.

mod faulty;
mod splits;
mod world;

pub use faulty::{Fault, Faulty};
pub use world::Fake;
