//! The system calls that no crate wraps: the only place of the agent where `unsafe` stands.

pub(crate) mod bpf;
pub(crate) mod grace;
pub(crate) mod packet;
