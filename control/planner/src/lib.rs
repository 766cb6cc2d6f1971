//! Selection of endpoints and lowering of connections to per-node plans: pure.
//!
//! [`select()`] says which way a connection takes among the objects of an [`Inventory`] and why, [`analyse()`] what is
//! wrong with their rules, [`balance()`] who moves so that each endpoint has its share, [`lower()`] what a node has to
//! make of a connection, and [`Plan::delta`] what changes from one plan of a node to the next. Nothing here knows tokio,
//! gRPC or a clock.
#![forbid(unsafe_code)]

mod analyse;
mod balance;
mod inventory;
mod lower;
mod plan;
mod select;
#[cfg(test)]
mod testing;

pub use analyse::{Finding, Problem, analyse, analyse_services, check_wirings};
pub use balance::{Member, Told, balance};
pub use inventory::Inventory;
pub use lower::lower;
pub use plan::{Delta, Plan};
pub use select::{
    BranchPath, Choice, Class, Client, SelectError, SelectInput, Selection, Usage, backup, select,
};
