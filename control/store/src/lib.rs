//! The store: revisions, compare-and-set transactions, watches and leases; redb and memory behind one trait.
//!
//! [`Store`] is the contract. [`RedbStore`] keeps it in one file and is the default; [`MemoryStore`] forgets
//! everything when it is dropped and is for tests and trials. What a transaction, a lease or a sweep *means* is written once, in
//! `logic`, over the `Tables` trait; a back end brings the tables and the moment at which a change is durable. The decisions are
//! in ADR-0006.
//!
//! The order inside a back end is always the same: apply, make durable, append to the history that watches read,
//! answer the caller. So a caller that was answered, and a watch that was told, can rely on what they heard.

#![forbid(unsafe_code)]

mod error;
mod history;
mod logic;
mod memory;
mod redb;
mod store;
mod tables;
mod types;

pub use error::{OpenError, StoreError, WatchError};
pub use memory::MemoryStore;
pub use redb::{FORMAT_VERSION, RedbStore};
pub use store::{Store, Watch};
pub use types::{
    Change, Compare, Conflict, DEFAULT_HISTORY_BYTES, Entry, Event, Expected, Expired, LeaseId,
    MAX_KEY_BYTES, MAX_TXN_OPERATIONS, MAX_VALUE_BYTES, Put, Range, Revision, Txn, Value,
};
