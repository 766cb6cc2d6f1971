//! The store that forgets: for tests, and for trying things out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::{StoreError, WatchError};
use crate::history::History;
use crate::logic::{self, Done};
use crate::store::{Store, Watch};
use crate::tables::{LeaseRecord, Tables};
use crate::types::{DEFAULT_HISTORY_BYTES, Entry, Expired, LeaseId, Range, Revision, Txn};

/// A [`Store`] in this process's memory.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Mutex<MemoryTables>,
    history: Arc<History>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_history(DEFAULT_HISTORY_BYTES)
    }

    /// An empty store that keeps about `history_bytes` of changes for watches.
    #[must_use]
    pub fn with_history(history_bytes: usize) -> Self {
        Self {
            tables: Mutex::new(MemoryTables::default()),
            history: History::new(Revision(0), history_bytes),
        }
    }

    fn tables(&self) -> MutexGuard<'_, MemoryTables> {
        // `logic` checks before it writes and these tables cannot fail, so a panic leaves no half change.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        call: impl FnOnce(&mut MemoryTables) -> Result<Done<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tables = self.tables();
        let Done { answer, change } = call(&mut tables)?;
        // Still under the lock: the history is in the order of revisions.
        if let Some(change) = change {
            self.history.append(change);
        }
        Ok(answer)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.history.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.tables().revision)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.tables().entry(key)
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let tables = self.tables();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let below = tables
            .entries
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix));
        let entries = below.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Ok(Range {
            revision: tables.revision,
            entries,
        })
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.write(|tables| logic::commit(tables, txn))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(prefix, after)
    }

    async fn grant(&self, ttl: Duration, now: SystemTime) -> Result<LeaseId, StoreError> {
        self.write(|tables| logic::grant(tables, ttl, now))
    }

    async fn keep_alive(&self, lease: LeaseId, now: SystemTime) -> Result<SystemTime, StoreError> {
        self.write(|tables| logic::keep_alive(tables, lease, now))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.write(|tables| logic::revoke(tables, lease))
    }

    async fn expire(&self, now: SystemTime) -> Result<Expired, StoreError> {
        self.write(|tables| logic::expire(tables, now))
    }
}

#[derive(Debug, Default)]
struct MemoryTables {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    last_lease: u64,
    leases: BTreeMap<LeaseId, LeaseRecord>,
    lease_keys: BTreeSet<(LeaseId, String)>,
    deadlines: BTreeSet<(u64, LeaseId)>,
}

impl Tables for MemoryTables {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.revision)
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.revision = revision;
        Ok(())
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn put(&mut self, key: &str, entry: &Entry) -> Result<(), StoreError> {
        let before = self.entries.insert(key.to_owned(), entry.clone());
        if let Some(lease) = before.and_then(|entry| entry.lease) {
            self.lease_keys.remove(&(lease, key.to_owned()));
        }
        if let Some(lease) = entry.lease {
            self.lease_keys.insert((lease, key.to_owned()));
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<bool, StoreError> {
        let Some(entry) = self.entries.remove(key) else {
            return Ok(false);
        };
        if let Some(lease) = entry.lease {
            self.lease_keys.remove(&(lease, key.to_owned()));
        }
        Ok(true)
    }

    fn next_lease(&mut self) -> Result<LeaseId, StoreError> {
        self.last_lease += 1;
        Ok(LeaseId(self.last_lease))
    }

    fn lease(&self, id: LeaseId) -> Result<Option<LeaseRecord>, StoreError> {
        Ok(self.leases.get(&id).copied())
    }

    fn set_lease(&mut self, id: LeaseId, lease: LeaseRecord) -> Result<(), StoreError> {
        if let Some(before) = self.leases.insert(id, lease) {
            self.deadlines.remove(&(before.deadline_ms, id));
        }
        self.deadlines.insert((lease.deadline_ms, id));
        Ok(())
    }

    fn remove_lease(&mut self, id: LeaseId) -> Result<(), StoreError> {
        if let Some(before) = self.leases.remove(&id) {
            self.deadlines.remove(&(before.deadline_ms, id));
        }
        Ok(())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<String>, StoreError> {
        let from = self.lease_keys.range((id, String::new())..);
        Ok(from
            .take_while(|(lease, _)| *lease == id)
            .map(|(_, key)| key.clone())
            .collect())
    }

    fn due(&self, now_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        Ok(self
            .deadlines
            .range(..=(now_ms, LeaseId(u64::MAX)))
            .map(|(_, id)| *id)
            .collect())
    }
}
