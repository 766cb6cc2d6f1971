//! From the store to the registry: at the start, and again after the store lost a transaction.

use tieline_registry::{Registry, RegistryConfig, RestoreError};
use tieline_store::{Entry, Revision, Store, Txn};
use tokio::time::Instant;

use super::apply::Debt;
use super::run::{Engine, PREFIX, RETRY, State, wall_clock};
use crate::error::ControlError;
use crate::failure::Failure;
use crate::outlet::End;
use crate::readiness::Readiness;

/// Written to see whether the store takes writes again.
const PROBE_KEY: &str = "control/probe";

impl Engine {
    /// Nothing of the batch is stored, and the registry is ahead of the store: forget it and begin again from the
    /// store. Whoever follows the state by a stream begins again too; what the nodes forward goes on.
    pub(super) async fn lose(&mut self, failure: &Failure, debts: Vec<Debt>) {
        tracing::error!(%failure, "a transaction was lost; control reads its state anew");
        debts.into_iter().for_each(|debt| debt.fail(failure));
        self.waiters.fail_all(failure);
        self.sessions.end_all(End::Lost);
        self.monitors.end_all(End::Lost);
        self.dropped.clear();
        self.condition.set(Readiness::NotReady(failure.to_string()));
        let long_ago = Instant::now().checked_sub(RETRY).unwrap_or_else(Instant::now);
        self.state = State::Lost {
            why: failure.to_string(),
            tried: long_ago,
        };
        self.recover().await;
    }

    /// Reads the state anew if it is lost and it is time to try.
    pub(super) async fn recover(&mut self) {
        let State::Lost { tried, .. } = &self.state else {
            return;
        };
        if tried.elapsed() < RETRY {
            return;
        }
        match self.reopen().await {
            Ok((registry, revision)) => {
                tracing::info!(%revision, "the state is read anew");
                self.revision = revision;
                self.state = State::Working(Box::new(registry));
                self.gauges_due.get_or_insert_with(Instant::now);
                self.condition.set(Readiness::Ready);
            }
            Err(error) => {
                let why = error.to_string();
                self.condition.set(Readiness::NotReady(why.clone()));
                self.state = State::Lost {
                    why,
                    tried: Instant::now(),
                };
            }
        }
    }

    /// A store that can be read but not written would lose the next batch too, so it is tried first.
    async fn reopen(&self) -> Result<(Registry, Revision), ControlError> {
        let moment = wall_clock().as_millis().to_string().into_bytes();
        self.store.commit(Txn::new().put(PROBE_KEY, moment)).await?;
        restore(&*self.store, &self.config).await
    }
}

/// The registry as the store has it.
pub(super) async fn restore(
    store: &dyn Store,
    config: &RegistryConfig,
) -> Result<(Registry, Revision), ControlError> {
    let range = store.range(PREFIX).await?;
    let record = |(key, entry): (String, Entry)| {
        (
            key.strip_prefix(PREFIX).unwrap_or(&key).to_owned(),
            entry.value.to_vec(),
        )
    };
    let registry = Registry::restore(config.clone(), range.entries.into_iter().map(record));
    let failed = |error: RestoreError| ControlError::Restore {
        store: store.describe(),
        detail: error.to_string(),
    };
    Ok((registry.map_err(failed)?, range.revision))
}
