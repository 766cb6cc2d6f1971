//! Whether what wires lead to is alive, found out in some tens of milliseconds.
//!
//! Watched is a *path*: the workloads that a circuit leads through, the endpoint last. All wires with one path live and
//! die together, so one of them is asked for all, by turns. The question is an ICMP echo request, sent into the first
//! workload on the path as if the client had sent it; the endpoint's kernel answers the client, and the answer comes back
//! to the position where it was sent, which notes the time and lets it go no further. So a question passes everything
//! that the client's packets pass, both ways, and no packet that a workload sends or receives is touched. Where packets
//! of the path come back by themselves, nothing is asked.
//!
//! `state` decides, without a clock or a socket; `prober` is its thread; `target` and `frame` say what is sent
//! where.

mod frame;
mod prober;
mod state;
mod target;

pub use prober::{Prober, Stats};
pub use state::{Ask, Due, Notice, Sense, Timing, Watch};
pub use target::{Target, WatchChange};

pub(crate) use prober::Senses;
pub(crate) use target::targets;
