//! The words of the contract: revisions, entries, transactions and what came of them.

use std::fmt;
use std::sync::Arc;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most compares, puts and deletes of one transaction, together: all leases of a full control may end in one.
pub const MAX_TXN_OPERATIONS: usize = 1_048_576;
/// How many bytes of keys and values the history behind watches keeps, unless told otherwise.
pub const DEFAULT_HISTORY_BYTES: usize = 16 * 1024 * 1024;

/// The store's one counter. Every transaction that changes something takes the next number; all keys that it
/// writes carry it. The first change is 1, so 0 stands before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease. Never given out twice by the same store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Opaque bytes; cheap to clone.
pub type Value = Arc<[u8]>;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value as it was put.
    pub value: Value,
    /// The revision that brought the key into being. A key that was deleted and put again is a new one.
    pub created: Revision,
    /// The revision of the latest put.
    pub modified: Revision,
    /// The lease the key ends with, if the latest put named one.
    pub lease: Option<LeaseId>,
}

/// What a [`Compare`] wants of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The key is not there.
    Absent,
    /// The key's `modified` revision is exactly this.
    At(Revision),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no such key"),
            Self::At(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key that is looked at.
    pub key: String,
    /// What must hold for it.
    pub expected: Expected,
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Not empty, at most [`MAX_KEY_BYTES`].
    pub key: String,
    /// At most [`MAX_VALUE_BYTES`].
    pub value: Value,
    /// The lease that the key ends with. `None` detaches the key from the lease of an earlier put.
    pub lease: Option<LeaseId>,
}

/// A transaction: if all compares hold, all writes happen, under one revision; otherwise none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions, looked at in order.
    pub compares: Vec<Compare>,
    /// Writes. A key stands in a transaction once at most, puts and deletes together.
    pub puts: Vec<Put>,
    /// Removals. A key that is not there is not an error and makes no event.
    pub deletes: Vec<String>,
}

impl Txn {
    /// An empty transaction: it changes nothing and takes no revision.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that `key` was last written at `revision`.
    #[must_use]
    pub fn if_revision(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.compares.push(Compare {
            key: key.into(),
            expected: Expected::At(revision),
        });
        self
    }

    /// Adds the condition that `key` is not there.
    #[must_use]
    pub fn if_absent(mut self, key: impl Into<String>) -> Self {
        self.compares.push(Compare {
            key: key.into(),
            expected: Expected::Absent,
        });
        self
    }

    /// Adds a write without lease.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.puts.push(Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Adds a write that ends with `lease`.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Value>, lease: LeaseId) -> Self {
        self.puts.push(Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// How many compares, puts and deletes there are.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.compares.len() + self.puts.len() + self.deletes.len()
    }
}

/// Why a transaction did not happen: the first condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key of the condition.
    pub key: String,
    /// What the transaction wanted.
    pub expected: Expected,
    /// The key's `modified` revision, `None` if it is not there.
    pub found: Option<Revision>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?}: expected {}, found ", self.key, self.expected)?;
        match self.found {
            Some(revision) => write!(f, "revision {revision}"),
            None => f.write_str("no such key"),
        }
    }
}

/// All entries below a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The store's revision that the entries are of. [`Store::watch`](crate::Store::watch) after it misses nothing.
    pub revision: Revision,
    /// In the order of their keys' bytes.
    pub entries: Vec<(String, Entry)>,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was put.
    Put {
        /// The key.
        key: String,
        /// What stands there since.
        entry: Entry,
    },
    /// The key went: by a delete, a revoked lease or an expired one.
    Deleted {
        /// The key.
        key: String,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Deleted { key } => key,
        }
    }
}

/// Everything that one revision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision.
    pub revision: Revision,
    /// Puts in the transaction's order, then deletes.
    pub events: Vec<Event>,
}

/// What a sweep of leases removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The leases that ended, in order of their deadline.
    pub leases: Vec<LeaseId>,
    /// The store's revision after the sweep; all their keys went under it.
    pub revision: Revision,
}
