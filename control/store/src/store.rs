//! The contract.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_stream::Stream;

use crate::error::{StoreError, WatchError};
use crate::types::{Change, Entry, Expired, LeaseId, Range, Revision, Txn};

/// Changes below a prefix in the order of their revisions, without gap and without duplicate. Each item is all
/// that one revision changed below the prefix. Ends after an error, or when the store is closed.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Change, WatchError>> + Send>>;

/// A small, consistent, durable map of keys to bytes.
///
/// What an implementation promises is what `tests/contract` checks; all of them pass the same suite. Time is an
/// argument: a store reads no clock.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The store for people: `redb PATH`, `memory`.
    fn describe(&self) -> String;

    /// The revision of the latest change; 0 before the first.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// What stands under `key`.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Everything whose key begins with `prefix`, as of one revision; the empty prefix means everything.
    async fn range(&self, prefix: &str) -> Result<Range, StoreError>;

    /// Carries out a transaction, all or nothing. When this returns, the change is durable.
    ///
    /// The revision is the transaction's own, or the store's present one if it changed nothing.
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError>;

    /// Every change below `prefix` whose revision is greater than `after`, and then the ones to come. With the
    /// revision of a [`Range`] nothing is missed and nothing comes twice.
    ///
    /// The history is bounded, and does not outlive the process that wrote it: [`WatchError::Compacted`] then.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError>;

    /// A new lease that ends at `now + ttl`.
    async fn grant(&self, ttl: Duration, now: SystemTime) -> Result<LeaseId, StoreError>;

    /// Moves the end of a lease to `now` plus the `ttl` of its grant, and says when that is. A lease whose end has
    /// come is gone even if no sweep has removed it yet.
    async fn keep_alive(&self, lease: LeaseId, now: SystemTime) -> Result<SystemTime, StoreError>;

    /// Ends a lease and deletes the keys attached to it, under one revision.
    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError>;

    /// Ends every lease whose time has come by `now` and deletes their keys, under one revision.
    async fn expire(&self, now: SystemTime) -> Result<Expired, StoreError>;
}
