//! The datapath half on this machine's kernel: root, namespaces and a bpffs of its own per test.
#![expect(clippy::expect_used, reason = "tests")]

mod block;
mod branches;
mod circuits;
mod failover;
mod others;
mod patrol;
mod policies;
mod restart;
mod scale;
mod wires;
mod world;
