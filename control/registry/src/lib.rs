//! The registry state machine: services, endpoints, connections, leases and address allocation, without IO or clock.
//!
//! [`Registry::handle`] takes a [`Command`] at a moment `now` and answers; [`Registry::take_effects`] then says what
//! the shell around it must do: write records to the store *first*, then send the nodes their changes, tell the
//! watchers, and answer those who wait for a wire ([`Settled`]). Each command happens entirely or not at all. The same
//! commands at the same moments always give the same state, and [`Registry::restore`] from the records gives that
//! state again.
#![forbid(unsafe_code)]

mod apply;
mod circuits;
mod command;
mod config;
mod connections;
mod context;
mod draining;
mod effects;
mod endpoints;
mod foreign;
mod health;
mod ipam;
mod moves;
mod names;
mod nodes;
mod record;
mod refusal;
mod renames;
mod request;
mod reservations;
mod restore;
mod rollback;
mod runs;
mod silence;
mod state;
mod tables;
mod way;

pub use command::{
    Applied, ApplyAction, Caller, Command, Granted, NodeFailure, NodeGeneration, NodeHello, ObservedWire,
    Outcome, Reply, WireFailureKind,
};
pub use config::RegistryConfig;
pub use effects::{ChangeKind, Effects, RegistryEvent, Settled, Write};
pub use foreign::Offer;
pub use moves::{Leg, Move};
pub use nodes::NodeState;
pub use record::{RECORD_VERSION, Record, RestoreError};
pub use refusal::{Code, Refusal};
pub use reservations::{Reservation, ReservationRequest, Unknown};
pub use state::{Counts, Registry};
pub use tieline_planner::Finding;

#[cfg(test)]
mod tests;
