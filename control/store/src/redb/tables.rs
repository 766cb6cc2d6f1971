//! The file's tables, inside one write transaction.

use ::redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::unavailable;
use crate::error::StoreError;
use crate::tables::{LeaseRecord, Tables};
use crate::types::{Entry, LeaseId, Revision};

/// Single numbers of the store.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In [`META`]: the layout of these tables.
pub(super) const FORMAT: &str = "format";
/// In [`META`]: the revision of the latest change.
pub(super) const REVISION: &str = "revision";
/// In [`META`]: the lease that was granted last.
const LAST_LEASE: &str = "last-lease";

/// `(created, modified, lease or 0, value)`.
pub(super) type Row<'a> = (u64, u64, u64, &'a [u8]);
/// Entries by key.
pub(super) const ENTRIES: TableDefinition<'_, &str, Row<'_>> = TableDefinition::new("entries");
/// `(ttl, deadline)` in milliseconds by lease.
const LEASES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("leases");
/// The keys of each lease.
const LEASE_KEYS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("lease-keys");
/// The leases by deadline.
const DEADLINES: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("deadlines");

/// The entry in a row.
pub(super) fn entry_of((created, modified, lease, value): Row<'_>) -> Entry {
    Entry {
        value: value.into(),
        created: Revision(created),
        modified: Revision(modified),
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

/// All tables, open for writing.
pub(super) struct RedbTables<'txn> {
    store: &'txn str,
    meta: Table<'txn, &'static str, u64>,
    entries: Table<'txn, &'static str, Row<'static>>,
    leases: Table<'txn, u64, (u64, u64)>,
    lease_keys: Table<'txn, (u64, &'static str), ()>,
    deadlines: Table<'txn, (u64, u64), ()>,
}

impl<'txn> RedbTables<'txn> {
    /// Opens the tables, making those that are missing.
    pub(super) fn open(store: &'txn str, txn: &'txn WriteTransaction) -> Result<Self, ::redb::TableError> {
        Ok(Self {
            store,
            meta: txn.open_table(META)?,
            entries: txn.open_table(ENTRIES)?,
            leases: txn.open_table(LEASES)?,
            lease_keys: txn.open_table(LEASE_KEYS)?,
            deadlines: txn.open_table(DEADLINES)?,
        })
    }

    /// A number from the table of single numbers.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let number = self
            .meta
            .get(name)
            .map_err(|error| unavailable(self.store, "read", &error))?;
        Ok(number.map(|number| number.value()))
    }

    /// Sets a number in the table of single numbers.
    pub(super) fn set_number(&mut self, name: &str, number: u64) -> Result<(), StoreError> {
        self.meta
            .insert(name, number)
            .map_err(|error| unavailable(self.store, "write", &error))?;
        Ok(())
    }

    fn attach(&mut self, lease: Option<LeaseId>, key: &str) -> Result<(), StoreError> {
        let Some(LeaseId(lease)) = lease else {
            return Ok(());
        };
        self.lease_keys
            .insert((lease, key), ())
            .map_err(|error| unavailable(self.store, "write", &error))?;
        Ok(())
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &str) -> Result<(), StoreError> {
        let Some(LeaseId(lease)) = lease else {
            return Ok(());
        };
        self.lease_keys
            .remove((lease, key))
            .map_err(|error| unavailable(self.store, "write", &error))?;
        Ok(())
    }

    fn forget_deadline(&mut self, id: LeaseId, lease: Option<LeaseRecord>) -> Result<(), StoreError> {
        let Some(lease) = lease else { return Ok(()) };
        let key = (lease.deadline_ms, id.0);
        self.deadlines
            .remove(key)
            .map_err(|error| unavailable(self.store, "write", &error))?;
        Ok(())
    }
}

impl Tables for RedbTables<'_> {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.number(REVISION)?.unwrap_or(0)))
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.set_number(REVISION, revision.0)
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let row = self
            .entries
            .get(key)
            .map_err(|error| unavailable(self.store, "read", &error))?;
        Ok(row.map(|row| entry_of(row.value())))
    }

    fn put(&mut self, key: &str, entry: &Entry) -> Result<(), StoreError> {
        let lease = entry.lease.map_or(0, |lease| lease.0);
        let row = (entry.created.0, entry.modified.0, lease, &*entry.value);
        let before = self
            .entries
            .insert(key, row)
            .map_err(|error| unavailable(self.store, "write", &error))?;
        let before = before.and_then(|row| entry_of(row.value()).lease);
        self.detach(before, key)?;
        self.attach(entry.lease, key)
    }

    fn remove(&mut self, key: &str) -> Result<bool, StoreError> {
        let before = self
            .entries
            .remove(key)
            .map_err(|error| unavailable(self.store, "write", &error))?;
        let Some(before) = before.map(|row| entry_of(row.value())) else {
            return Ok(false);
        };
        self.detach(before.lease, key)?;
        Ok(true)
    }

    fn next_lease(&mut self) -> Result<LeaseId, StoreError> {
        let id = self.number(LAST_LEASE)?.unwrap_or(0) + 1;
        self.set_number(LAST_LEASE, id)?;
        Ok(LeaseId(id))
    }

    fn lease(&self, id: LeaseId) -> Result<Option<LeaseRecord>, StoreError> {
        let lease = self
            .leases
            .get(id.0)
            .map_err(|error| unavailable(self.store, "read", &error))?;
        Ok(lease.map(|lease| {
            let (ttl_ms, deadline_ms) = lease.value();
            LeaseRecord { ttl_ms, deadline_ms }
        }))
    }

    fn set_lease(&mut self, id: LeaseId, lease: LeaseRecord) -> Result<(), StoreError> {
        self.forget_deadline(id, self.lease(id)?)?;
        let failed = |error: ::redb::StorageError| unavailable(self.store, "write", &error);
        self.leases
            .insert(id.0, (lease.ttl_ms, lease.deadline_ms))
            .map_err(failed)?;
        self.deadlines
            .insert((lease.deadline_ms, id.0), ())
            .map_err(failed)?;
        Ok(())
    }

    fn remove_lease(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.forget_deadline(id, self.lease(id)?)?;
        self.leases
            .remove(id.0)
            .map_err(|error| unavailable(self.store, "write", &error))?;
        Ok(())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<String>, StoreError> {
        let failed = |error: ::redb::StorageError| unavailable(self.store, "read", &error);
        let mut keys = Vec::new();
        for row in self.lease_keys.range((id.0, "")..).map_err(failed)? {
            let (row, ()) = row.map(|(key, value)| (key, value.value())).map_err(failed)?;
            let (lease, key) = row.value();
            if lease != id.0 {
                break;
            }
            keys.push(key.to_owned());
        }
        Ok(keys)
    }

    fn due(&self, now_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        let failed = |error: ::redb::StorageError| unavailable(self.store, "read", &error);
        let rows = self.deadlines.range(..=(now_ms, u64::MAX)).map_err(failed)?;
        rows.map(|row| row.map(|(key, _)| LeaseId(key.value().1)).map_err(failed))
            .collect()
    }
}
