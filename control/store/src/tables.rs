//! What a back end must keep. Plain reads and writes; their meaning is in [`logic`](crate::logic).

use crate::error::StoreError;
use crate::types::{Entry, LeaseId, Revision};

/// A lease as it is kept. Times are milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    pub(crate) ttl_ms: u64,
    pub(crate) deadline_ms: u64,
}

/// The tables of a store inside one transaction of its back end.
pub(crate) trait Tables {
    fn revision(&self) -> Result<Revision, StoreError>;
    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError>;

    /// The entry under `key`.
    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError>;
    /// Puts an entry and moves the key from the lease of the entry before to its own.
    fn put(&mut self, key: &str, entry: &Entry) -> Result<(), StoreError>;
    /// Removes a key, also from its lease. Says whether it was there.
    fn remove(&mut self, key: &str) -> Result<bool, StoreError>;

    /// A number that was never returned before.
    fn next_lease(&mut self) -> Result<LeaseId, StoreError>;
    fn lease(&self, id: LeaseId) -> Result<Option<LeaseRecord>, StoreError>;
    fn set_lease(&mut self, id: LeaseId, lease: LeaseRecord) -> Result<(), StoreError>;
    /// Removes a lease that has no keys left.
    fn remove_lease(&mut self, id: LeaseId) -> Result<(), StoreError>;
    /// The keys attached to a lease, in order.
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<String>, StoreError>;
    /// Leases with a deadline of `now_ms` or before, earliest first.
    fn due(&self, now_ms: u64) -> Result<Vec<LeaseId>, StoreError>;
}
