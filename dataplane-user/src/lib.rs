//! The node agent: loads the kernel programs, keeps maps and interfaces as planned, serves workloads.
//!
//! Two halves. The *datapath* half is synchronous: [`desired`] is what control planned, the observed state is what
//! the kernel holds, a pure diff makes operations of the difference, one executor carries them out. The *agent*
//! half is asynchronous: the session with control, the local API for workloads, metrics and health.

pub mod desired;
pub mod outcome;
