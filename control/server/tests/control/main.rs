//! Control as its clients see it: a server on a socket of its own, spoken to by gRPC, with scripted agents.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod agent;
mod calls;
mod domains;
mod failing;
mod kill;
mod load;
mod monitors;
mod process;
mod requests;
mod sessions;
mod world;
