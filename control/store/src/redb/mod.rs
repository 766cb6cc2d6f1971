//! The store in one file.
//!
//! Reads run beside each other on redb's snapshots. All writes go through one thread ([`writer`]), which carries
//! out what has piled up in one file transaction: under load, many callers share one sync of the disk.

mod open;
mod tables;
mod writer;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ::redb::{Database, ReadTransaction, ReadableDatabase as _};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::tables::{ENTRIES, META, REVISION, RedbTables, Row, entry_of};
use self::writer::{Call, Job};
use crate::error::{OpenError, StoreError, WatchError};
use crate::history::History;
use crate::logic::{self, Done};
use crate::store::{Store, Watch};
use crate::types::{DEFAULT_HISTORY_BYTES, Entry, Expired, LeaseId, Range, Revision, Txn};

pub use self::open::FORMAT_VERSION;

/// How many calls may wait for the writer before further callers wait to hand theirs over.
const WAITING_CALLS: usize = 1024;

/// A [`Store`] in one file, by redb. Dropping it waits for the write that is under way.
#[derive(Debug)]
pub struct RedbStore {
    name: Arc<str>,
    path: PathBuf,
    database: Arc<Database>,
    history: Arc<History>,
    /// `None` only while dropping.
    calls: Option<mpsc::Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the store at `path`, making file (mode 0600) and directory if need be. Blocks: it reads the disk, and
    /// after a crash it checks the whole file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with_history(path, DEFAULT_HISTORY_BYTES)
    }

    /// As [`open`](Self::open), keeping about `history_bytes` of changes for watches.
    pub fn open_with_history(path: impl AsRef<Path>, history_bytes: usize) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        let (database, revision) = open::open(&path)?;
        let database = Arc::new(database);
        let name: Arc<str> = format!("redb {}", path.display()).into();
        let history = History::new(revision, history_bytes);
        let (calls, receiver) = mpsc::channel(WAITING_CALLS);
        let writer = writer::spawn(
            Arc::clone(&name),
            Arc::clone(&database),
            Arc::clone(&history),
            receiver,
        )
        .map_err(|source| OpenError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            name,
            path,
            database,
            history,
            calls: Some(calls),
            writer: Some(writer),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn write<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut RedbTables<'_>) -> Result<Done<T>, StoreError> + Send + 'static,
    {
        let closed = || StoreError::Closed {
            store: self.name.to_string(),
        };
        let calls = self.calls.as_ref().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        calls
            .send(Box::new(Call::new(call, reply)))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, ::redb::Error> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let task = move || read(&database.begin_read()?);
        match tokio::task::spawn_blocking(task).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(unavailable(&self.name, "read", &error)),
            Err(_) => Err(StoreError::Closed {
                store: self.name.to_string(),
            }),
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(store = %self.name, "the store's writer panicked; the file holds what was acknowledged");
        }
        self.history.close();
    }
}

#[async_trait]
impl Store for RedbStore {
    fn describe(&self) -> String {
        self.name.to_string()
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(stored_revision).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |read| {
            let row = read.open_table(ENTRIES)?.get(key.as_str())?;
            Ok(row.map(|row| entry_of(row.value())))
        })
        .await
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |read| {
            let table = read.open_table(ENTRIES)?;
            let mut entries = Vec::new();
            for row in table.range::<&str>((Bound::Included(prefix.as_str()), Bound::Unbounded))? {
                let (key, row) = row?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let row: Row<'_> = row.value();
                entries.push((key.value().to_owned(), entry_of(row)));
            }
            Ok(Range {
                revision: stored_revision(read)?,
                entries,
            })
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.write(move |tables| logic::commit(tables, txn)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(prefix, after)
    }

    async fn grant(&self, ttl: Duration, now: SystemTime) -> Result<LeaseId, StoreError> {
        self.write(move |tables| logic::grant(tables, ttl, now)).await
    }

    async fn keep_alive(&self, lease: LeaseId, now: SystemTime) -> Result<SystemTime, StoreError> {
        self.write(move |tables| logic::keep_alive(tables, lease, now))
            .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.write(move |tables| logic::revoke(tables, lease)).await
    }

    async fn expire(&self, now: SystemTime) -> Result<Expired, StoreError> {
        self.write(move |tables| logic::expire(tables, now)).await
    }
}

fn stored_revision(read: &ReadTransaction) -> Result<Revision, ::redb::Error> {
    let revision = read.open_table(META)?.get(REVISION)?;
    Ok(Revision(revision.map_or(0, |revision| revision.value())))
}

fn unavailable(store: &str, action: &'static str, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable {
        store: store.to_owned(),
        action,
        cause: cause.to_string(),
    }
}
