//! The one thread that writes. It takes whatever calls are waiting, carries them out in one file transaction, and
//! answers after the disk has it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ::redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::tables::RedbTables;
use super::unavailable;
use crate::error::StoreError;
use crate::history::History;
use crate::logic::Done;
use crate::types::Change;

/// Most calls that share one file transaction. Bounds how long the first of them waits for the others.
const MAX_BATCH: usize = 256;

/// A call that waits to be carried out.
pub(super) trait Job: Send {
    /// Carries the call out. A call that is refused has written nothing and is no error here: an error means that
    /// the file transaction is lost.
    fn apply(&mut self, tables: &mut RedbTables<'_>) -> Result<Option<Change>, StoreError>;

    /// Answers the caller: with what came of [`apply`](Job::apply) if the transaction is durable.
    fn answer(self: Box<Self>, transaction: Result<(), StoreError>);
}

/// The [`Job`] of a call with result `T`.
pub(super) struct Call<T, F> {
    call: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Call<T, F> {
    /// `call` is carried out once, then `reply` hears.
    pub(super) fn new(call: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self {
            call: Some(call),
            outcome: None,
            reply,
        }
    }
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut RedbTables<'_>) -> Result<Done<T>, StoreError> + Send,
{
    fn apply(&mut self, tables: &mut RedbTables<'_>) -> Result<Option<Change>, StoreError> {
        let Some(call) = self.call.take() else {
            return Ok(None);
        };
        let (outcome, change) = match call(tables) {
            Ok(done) => (Ok(done.answer), done.change),
            Err(refusal) if refusal.is_refusal() => (Err(refusal), None),
            Err(failure) => return Err(failure),
        };
        self.outcome = Some(outcome);
        Ok(change)
    }

    fn answer(self: Box<Self>, transaction: Result<(), StoreError>) {
        let outcome = match (transaction, self.outcome) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Some(outcome)) => outcome,
            // Not carried out, so there is nothing to say; dropping `reply` tells the caller.
            (Ok(()), None) => return,
        };
        // A caller that went away does not undo what it asked for.
        drop(self.reply.send(outcome));
    }
}

/// Starts the writer. It ends when all senders of `calls` are gone.
pub(super) fn spawn(
    store: Arc<str>,
    database: Arc<Database>,
    history: Arc<History>,
    mut calls: mpsc::Receiver<Box<dyn Job>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("tieline-store".to_owned())
        .spawn(move || {
            while let Some(first) = calls.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < MAX_BATCH
                    && let Ok(next) = calls.try_recv()
                {
                    batch.push(next);
                }
                carry_out(&store, &database, &history, batch);
            }
        })
}

fn carry_out(store: &str, database: &Database, history: &History, mut batch: Vec<Box<dyn Job>>) {
    let outcome = match transact(store, database, &mut batch) {
        Ok(changes) => {
            changes.into_iter().for_each(|change| history.append(change));
            Ok(())
        }
        Err(failure) => {
            tracing::error!(%failure, calls = batch.len(), "the store lost a transaction");
            Err(failure)
        }
    };
    for job in batch {
        job.answer(outcome.clone());
    }
}

/// When this returns the changes, they are on the disk. When it fails, nothing of the batch is.
fn transact(store: &str, database: &Database, batch: &mut [Box<dyn Job>]) -> Result<Vec<Change>, StoreError> {
    let txn = database
        .begin_write()
        .map_err(|error| unavailable(store, "begin a transaction", &error))?;
    let mut changes = Vec::with_capacity(batch.len());
    {
        let mut tables =
            RedbTables::open(store, &txn).map_err(|error| unavailable(store, "open its tables", &error))?;
        for job in batch {
            changes.extend(job.apply(&mut tables)?);
        }
    }
    txn.commit()
        .map_err(|error| unavailable(store, "commit", &error))?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedbStore;
    use crate::logic;
    use crate::store::Store as _;
    use crate::types::{Revision, Txn};

    type Outcome = oneshot::Receiver<Result<Revision, StoreError>>;

    fn put(key: &'static str) -> (Box<dyn Job>, Outcome) {
        let (reply, outcome) = oneshot::channel();
        let call = move |tables: &mut RedbTables<'_>| logic::commit(tables, Txn::new().put(key, *b"1"));
        (Box::new(Call::new(call, reply)), outcome)
    }

    fn disk_error_after_a_write(key: &'static str) -> (Box<dyn Job>, Outcome) {
        let (reply, outcome) = oneshot::channel();
        let call = move |tables: &mut RedbTables<'_>| {
            logic::commit(tables, Txn::new().put(key, *b"1"))?;
            Err(unavailable("redb test", "write", &"no space left on device"))
        };
        (Box::new(Call::new(call, reply)), outcome)
    }

    #[tokio::test]
    async fn a_failing_medium_fails_every_call_of_the_transaction_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = RedbStore::open(&path).unwrap();
        let calls = store.calls.as_ref().unwrap();
        // While the writer waits on this thread's first call nothing else runs, so the three that follow are one batch.
        let (before, (gate, open)) = (put("before"), std::sync::mpsc::channel::<()>());
        let (reply, _) = oneshot::channel();
        let wait = move |tables: &mut RedbTables<'_>| {
            open.recv().unwrap();
            logic::commit(tables, Txn::new())
        };
        calls.send(before.0).await.unwrap();
        assert_eq!(before.1.await.unwrap(), Ok(Revision(1)));
        calls.send(Box::new(Call::new(wait, reply))).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let batch = [put("a"), disk_error_after_a_write("b"), put("c")];
        let mut outcomes = Vec::new();
        for (job, outcome) in batch {
            calls.send(job).await.unwrap();
            outcomes.push(outcome);
        }
        gate.send(()).unwrap();
        for outcome in outcomes {
            assert!(matches!(
                outcome.await.unwrap(),
                Err(StoreError::Unavailable { .. })
            ));
        }
        assert_eq!(
            store.commit(Txn::new().put("after", *b"1")).await,
            Ok(Revision(2))
        );
        let keys: Vec<_> = store
            .range("")
            .await
            .unwrap()
            .entries
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["after", "before"]);
    }
}
