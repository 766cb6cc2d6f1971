//! The contract of `Store`, checked against every implementation by one suite, and what only a file can show.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod files;
mod kill;
mod model;
mod suite;

use tempfile::TempDir;
use tieline_store::{MemoryStore, RedbStore};

/// A redb store and the directory it lies in, which goes when the test ends.
struct Filed {
    store: RedbStore,
    _directory: TempDir,
}

impl std::ops::Deref for Filed {
    type Target = RedbStore;
    fn deref(&self) -> &RedbStore {
        &self.store
    }
}

fn redb(history_bytes: usize) -> Filed {
    let directory = tempfile::Builder::new().prefix("tl-store-").tempdir().unwrap();
    let store = RedbStore::open_with_history(directory.path().join("store.redb"), history_bytes).unwrap();
    Filed {
        store,
        _directory: directory,
    }
}

/// Runs each truth of the suite against each implementation.
macro_rules! contract {
    ($($truth:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $truth() {
                super::suite::$truth(&super::MemoryStore::with_history(super::suite::HISTORY_BYTES)).await;
            })+
        }
        mod redb_file {
            $(#[tokio::test]
            async fn $truth() {
                super::suite::$truth(&*super::redb(super::suite::HISTORY_BYTES)).await;
            })+
        }
    };
}

contract!(
    a_new_store_is_empty_at_revision_zero,
    keys_carry_the_revisions_of_their_birth_and_last_write,
    a_deleted_key_is_born_anew,
    a_transaction_is_one_revision,
    a_transaction_that_changes_nothing_takes_no_revision,
    a_conflict_names_key_expected_and_found_and_changes_nothing,
    of_racing_writers_exactly_one_wins_each_revision,
    malformed_transactions_are_refused_whole,
    a_range_is_sorted_and_holds_only_its_prefix,
    a_range_under_writes_is_one_revision,
    a_watch_after_a_range_misses_nothing_and_repeats_nothing,
    a_watch_sees_whole_revisions_of_its_prefix_only,
    a_watch_of_the_past_is_answered_from_history,
    a_watch_of_forgotten_changes_is_refused_with_the_oldest,
    a_slow_watch_is_told_and_ends,
    a_lease_takes_its_keys_with_it_when_it_expires,
    a_lease_lives_on_by_keep_alive_and_not_past_its_end,
    revoking_deletes_the_keys_under_one_revision,
    a_key_belongs_to_the_lease_of_its_last_put,
    lease_ids_are_never_given_twice,
    a_put_with_an_unknown_lease_is_refused,
);
