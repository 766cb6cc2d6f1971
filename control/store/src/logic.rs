//! What the calls mean, over any [`Tables`]. Everything is checked before the first write, so a refused call leaves
//! the tables as they were.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::StoreError;
use crate::tables::{LeaseRecord, Tables};
use crate::types::{
    Change, Compare, Conflict, Entry, Event, Expected, Expired, LeaseId, MAX_KEY_BYTES, MAX_TXN_OPERATIONS,
    MAX_VALUE_BYTES, Revision, Txn,
};

/// The answer of a call, and what watches must hear of it.
#[derive(Debug)]
pub(crate) struct Done<T> {
    pub(crate) answer: T,
    pub(crate) change: Option<Change>,
}

/// [`Store::commit`](crate::Store::commit).
pub(crate) fn commit(tables: &mut impl Tables, txn: Txn) -> Result<Done<Revision>, StoreError> {
    check_shape(&txn)?;
    for compare in &txn.compares {
        check_compare(tables, compare)?;
    }
    for lease in txn.puts.iter().filter_map(|put| put.lease) {
        tables.lease(lease)?.ok_or(StoreError::LeaseNotFound(lease))?;
    }

    let before = tables.revision()?;
    let revision = Revision(before.0 + 1);
    let mut events = Vec::with_capacity(txn.puts.len() + txn.deletes.len());
    for put in txn.puts {
        let created = tables.entry(&put.key)?.map_or(revision, |entry| entry.created);
        let entry = Entry {
            value: put.value,
            created,
            modified: revision,
            lease: put.lease,
        };
        tables.put(&put.key, &entry)?;
        events.push(Event::Put { key: put.key, entry });
    }
    for key in txn.deletes {
        if tables.remove(&key)? {
            events.push(Event::Deleted { key });
        }
    }
    finish(tables, before, events)
}

/// [`Store::grant`](crate::Store::grant).
pub(crate) fn grant(
    tables: &mut impl Tables,
    ttl: Duration,
    now: SystemTime,
) -> Result<Done<LeaseId>, StoreError> {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let id = tables.next_lease()?;
    tables.set_lease(
        id,
        LeaseRecord {
            ttl_ms,
            deadline_ms: since_epoch(now).saturating_add(ttl_ms),
        },
    )?;
    Ok(Done {
        answer: id,
        change: None,
    })
}

/// [`Store::keep_alive`](crate::Store::keep_alive).
pub(crate) fn keep_alive(
    tables: &mut impl Tables,
    id: LeaseId,
    now: SystemTime,
) -> Result<Done<SystemTime>, StoreError> {
    let now_ms = since_epoch(now);
    let alive = tables.lease(id)?.filter(|lease| lease.deadline_ms > now_ms);
    let LeaseRecord { ttl_ms, .. } = alive.ok_or(StoreError::LeaseNotFound(id))?;
    let deadline_ms = now_ms.saturating_add(ttl_ms);
    tables.set_lease(id, LeaseRecord { ttl_ms, deadline_ms })?;
    // A time that the clock's type cannot hold is as good as never.
    let deadline = UNIX_EPOCH
        .checked_add(Duration::from_millis(deadline_ms))
        .unwrap_or(now);
    Ok(Done {
        answer: deadline,
        change: None,
    })
}

/// [`Store::revoke`](crate::Store::revoke).
pub(crate) fn revoke(tables: &mut impl Tables, id: LeaseId) -> Result<Done<Revision>, StoreError> {
    tables.lease(id)?.ok_or(StoreError::LeaseNotFound(id))?;
    let before = tables.revision()?;
    let events = end_lease(tables, id)?;
    finish(tables, before, events)
}

/// [`Store::expire`](crate::Store::expire).
pub(crate) fn expire(tables: &mut impl Tables, now: SystemTime) -> Result<Done<Expired>, StoreError> {
    let before = tables.revision()?;
    let leases = tables.due(since_epoch(now))?;
    let mut events = Vec::new();
    for id in &leases {
        events.extend(end_lease(tables, *id)?);
    }
    let Done {
        answer: revision,
        change,
    } = finish(tables, before, events)?;
    Ok(Done {
        answer: Expired { leases, revision },
        change,
    })
}

fn check_shape(txn: &Txn) -> Result<(), StoreError> {
    let operations = txn.operations();
    if operations > MAX_TXN_OPERATIONS {
        return Err(StoreError::TooManyOperations { operations });
    }
    let mut written = BTreeSet::new();
    for key in txn.puts.iter().map(|put| &put.key).chain(&txn.deletes) {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(StoreError::KeyLength { key: key.clone() });
        }
        if !written.insert(key.as_str()) {
            return Err(StoreError::WrittenTwice { key: key.clone() });
        }
    }
    match txn.puts.iter().find(|put| put.value.len() > MAX_VALUE_BYTES) {
        Some(put) => Err(StoreError::ValueLength {
            key: put.key.clone(),
            bytes: put.value.len(),
        }),
        None => Ok(()),
    }
}

fn check_compare(tables: &impl Tables, compare: &Compare) -> Result<(), StoreError> {
    let found = tables.entry(&compare.key)?.map(|entry| entry.modified);
    let holds = match compare.expected {
        Expected::Absent => found.is_none(),
        Expected::At(revision) => found == Some(revision),
    };
    if holds {
        return Ok(());
    }
    Err(StoreError::Conflict(Conflict {
        key: compare.key.clone(),
        expected: compare.expected,
        found,
    }))
}

fn end_lease(tables: &mut impl Tables, id: LeaseId) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    for key in tables.lease_keys(id)? {
        tables.remove(&key)?;
        events.push(Event::Deleted { key });
    }
    tables.remove_lease(id)?;
    Ok(events)
}

/// Takes the next revision if anything changed.
fn finish(
    tables: &mut impl Tables,
    before: Revision,
    events: Vec<Event>,
) -> Result<Done<Revision>, StoreError> {
    if events.is_empty() {
        return Ok(Done {
            answer: before,
            change: None,
        });
    }
    let revision = Revision(before.0 + 1);
    tables.set_revision(revision)?;
    Ok(Done {
        answer: revision,
        change: Some(Change { revision, events }),
    })
}

/// Milliseconds; a clock before the epoch counts as the epoch.
fn since_epoch(now: SystemTime) -> u64 {
    let elapsed = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
