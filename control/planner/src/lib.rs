//! Selection of endpoints and lowering of connections to per-node plans: pure.
//!
//! [`select()`] says which endpoint a request gets and why, [`lower()`] what a node has to make of a connection, and
//! [`Plan::delta`] what changes from one plan of a node to the next. Nothing here knows tokio, gRPC or a clock.
#![forbid(unsafe_code)]

mod lower;
mod plan;
mod select;

pub use lower::lower;
pub use plan::{Delta, Plan};
pub use select::{Candidate, Removal, Removed, Report, SelectError, SelectInput, Selection, Step, select};
