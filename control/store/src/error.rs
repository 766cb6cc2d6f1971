//! What can go wrong, with the values in it and the next step for the operator.

use std::io;
use std::path::PathBuf;

use crate::types::{Conflict, LeaseId, MAX_KEY_BYTES, MAX_TXN_OPERATIONS, MAX_VALUE_BYTES, Revision};

/// Why a call to an open store failed. Nothing was changed by the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A compare of the transaction did not hold: read again and decide again.
    #[error("another write came first: {0}")]
    Conflict(Conflict),
    /// The lease was never granted, was revoked, or its time is over: grant a new one.
    #[error("lease {0} does not exist or has ended; grant a new one")]
    LeaseNotFound(LeaseId),
    /// A key is empty or too long.
    #[error("key {key:?} has {} bytes; 1 to {MAX_KEY_BYTES} are allowed", key.len())]
    KeyLength {
        /// The key.
        key: String,
    },
    /// A value is too long.
    #[error("the value of key {key:?} has {bytes} bytes; at most {MAX_VALUE_BYTES} are allowed")]
    ValueLength {
        /// Its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// A transaction is too large.
    #[error("the transaction has {operations} operations; at most {MAX_TXN_OPERATIONS} are allowed")]
    TooManyOperations {
        /// Compares, puts and deletes together.
        operations: usize,
    },
    /// A key stands twice in the puts and deletes of one transaction, so its outcome would hang on their order.
    #[error("key {key:?} is written twice in one transaction")]
    WrittenTwice {
        /// The key.
        key: String,
    },
    /// The medium failed. The transaction may be tried again after the cause is gone.
    #[error("the store {store} cannot {action}: {cause}; free space or repair the disk, then restart")]
    Unavailable {
        /// Which store.
        store: String,
        /// What it was doing.
        action: &'static str,
        /// What the medium said.
        cause: String,
    },
    /// The store was closed while the call was under way.
    #[error("the store {store} is closed")]
    Closed {
        /// Which store.
        store: String,
    },
}

impl StoreError {
    /// Whether the call itself was at fault: it wrote nothing, and calls beside it are not concerned.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::Closed { .. })
    }
}

/// Why a watch cannot begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The history does not reach back that far: read the range and watch after its revision.
    #[error(
        "changes after revision {after} were asked for, but only those after {oldest} are kept; read the range again"
    )]
    Compacted {
        /// What the watch had seen or asked for.
        after: Revision,
        /// The smallest revision that a watch may begin after.
        oldest: Revision,
    },
}

/// Why a store file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory of the file is missing and could not be made.
    #[error("cannot create the directory {} of the store: {source}; create it or name another path", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process may not read and write the file.
    #[error("no permission to read and write the store {}; run as its owner or name another path", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the file open.
    #[error("the store {} is in use by another process; stop that one, or give this one its own store", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store, or a damaged one.
    #[error("the store {} is damaged or not a store: {detail}; restore a backup or move the file away", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a later release.
    #[error(
        "the store {} has format {found}, this release reads up to {supported}; install the release that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The newest format that this release knows.
        supported: u64,
    },
    /// The file is of a redb generation that this release cannot read.
    #[error("the store {} has redb file format {found}, which this release cannot read; move the file away", path.display())]
    FileFormat {
        /// The file.
        path: PathBuf,
        /// redb's number.
        found: u8,
    },
    /// Anything else that the system refused.
    #[error("cannot open the store {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
