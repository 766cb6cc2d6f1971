//! The truths. Each takes an empty store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tieline_store::{
    Change, Conflict, Event, Expected, LeaseId, MAX_KEY_BYTES, MAX_TXN_OPERATIONS, MAX_VALUE_BYTES, Revision,
    Store, StoreError, Txn, Watch, WatchError,
};
use tokio_stream::StreamExt as _;

/// Small, so that the tests can overrun it.
pub(crate) const HISTORY_BYTES: usize = 64 * 1024;

const TTL: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(Txn::new().put(key, value.as_bytes())).await.unwrap()
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn keys(store: &dyn Store) -> Vec<String> {
    store
        .range("")
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

async fn next(watch: &mut Watch) -> Result<Change, WatchError> {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
    next.await
        .expect("the watch has something to say")
        .expect("the watch goes on")
}

fn names(change: &Change) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Put { key, .. } => format!("+{key}"),
        Event::Deleted { key } => format!("-{key}"),
    };
    change.events.iter().map(name).collect()
}

pub(crate) async fn a_new_store_is_empty_at_revision_zero(store: &dyn Store) {
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    let range = store.range("").await.unwrap();
    assert_eq!((range.revision, range.entries.len()), (Revision(0), 0));
    assert_eq!(store.get("a").await.unwrap(), None);
}

pub(crate) async fn keys_carry_the_revisions_of_their_birth_and_last_write(store: &dyn Store) {
    assert_eq!(put(store, "a", "1").await, Revision(1));
    assert_eq!(put(store, "b", "1").await, Revision(2));
    assert_eq!(put(store, "a", "2").await, Revision(3));
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!(
        (&*a.value, a.created, a.modified, a.lease),
        (&b"2"[..], Revision(1), Revision(3), None)
    );
    assert_eq!(store.get("b").await.unwrap().unwrap().modified, Revision(2));
    assert_eq!(store.revision().await.unwrap(), Revision(3));
}

pub(crate) async fn a_deleted_key_is_born_anew(store: &dyn Store) {
    put(store, "a", "1").await;
    assert_eq!(store.commit(Txn::new().delete("a")).await.unwrap(), Revision(2));
    assert_eq!(store.get("a").await.unwrap(), None);
    put(store, "a", "2").await;
    assert_eq!(store.get("a").await.unwrap().unwrap().created, Revision(3));
}

pub(crate) async fn a_transaction_is_one_revision(store: &dyn Store) {
    put(store, "old", "1").await;
    let txn = Txn::new()
        .if_absent("a")
        .put("a", *b"1")
        .put("b", *b"2")
        .delete("old");
    assert_eq!(store.commit(txn).await.unwrap(), Revision(2));
    let range = store.range("").await.unwrap();
    let revisions: Vec<_> = range
        .entries
        .iter()
        .map(|(key, e)| (key.as_str(), e.created, e.modified))
        .collect();
    assert_eq!(
        revisions,
        [("a", Revision(2), Revision(2)), ("b", Revision(2), Revision(2))]
    );
}

pub(crate) async fn a_transaction_that_changes_nothing_takes_no_revision(store: &dyn Store) {
    put(store, "a", "1").await;
    assert_eq!(store.commit(Txn::new()).await.unwrap(), Revision(1));
    assert_eq!(
        store.commit(Txn::new().delete("nothing")).await.unwrap(),
        Revision(1)
    );
    let only_compares = Txn::new().if_revision("a", Revision(1)).if_absent("b");
    assert_eq!(store.commit(only_compares).await.unwrap(), Revision(1));
    assert_eq!(store.revision().await.unwrap(), Revision(1));
}

pub(crate) async fn a_conflict_names_key_expected_and_found_and_changes_nothing(store: &dyn Store) {
    put(store, "a", "1").await;
    put(store, "a", "2").await;
    let conflicts = [
        (
            Txn::new().if_absent("a"),
            Expected::Absent,
            "a",
            Some(Revision(2)),
        ),
        (
            Txn::new().if_revision("a", Revision(1)),
            Expected::At(Revision(1)),
            "a",
            Some(Revision(2)),
        ),
        (
            Txn::new().if_revision("gone", Revision(7)),
            Expected::At(Revision(7)),
            "gone",
            None,
        ),
        (
            Txn::new().if_revision("a", Revision(2)).if_absent("a"),
            Expected::Absent,
            "a",
            Some(Revision(2)),
        ),
    ];
    for (txn, expected, key, found) in conflicts {
        let outcome = store.commit(txn.put("b", *b"x").delete("a")).await;
        let conflict = Conflict {
            key: key.to_owned(),
            expected,
            found,
        };
        assert_eq!(outcome, Err(StoreError::Conflict(conflict)));
    }
    assert_eq!(value(store, "a").await.as_deref(), Some("2"));
    assert_eq!(keys(store).await, ["a"]);
    assert_eq!(store.revision().await.unwrap(), Revision(2));
}

pub(crate) async fn of_racing_writers_exactly_one_wins_each_revision(store: &dyn Store) {
    put(store, "n", "0").await;
    for round in 1..=20_u64 {
        let seen = store.get("n").await.unwrap().unwrap().modified;
        let attempt = |who: u64| {
            let txn = Txn::new()
                .if_revision("n", seen)
                .put("n", format!("{round} {who}").into_bytes());
            async move { (who, store.commit(txn).await) }
        };
        let (a, b, c) = tokio::join!(attempt(0), attempt(1), attempt(2));
        let winners: Vec<_> = [a, b, c]
            .into_iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(
            value(store, "n").await.unwrap(),
            format!("{round} {}", winners[0].0)
        );
    }
}

pub(crate) async fn malformed_transactions_are_refused_whole(store: &dyn Store) {
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    let refused = [
        (
            Txn::new().put("", *b""),
            StoreError::KeyLength { key: String::new() },
        ),
        (
            Txn::new().delete(long.clone()),
            StoreError::KeyLength { key: long },
        ),
        (
            Txn::new().put("big", vec![0; MAX_VALUE_BYTES + 1]),
            StoreError::ValueLength {
                key: "big".to_owned(),
                bytes: MAX_VALUE_BYTES + 1,
            },
        ),
        (
            Txn::new().put("a", *b"").delete("a"),
            StoreError::WrittenTwice { key: "a".to_owned() },
        ),
        (
            Txn::new().put("a", *b"").put("a", *b""),
            StoreError::WrittenTwice { key: "a".to_owned() },
        ),
    ];
    for (txn, error) in refused {
        assert_eq!(store.commit(txn.put("fine", *b"")).await, Err(error));
    }
    let mut huge = Txn::new();
    huge.deletes = (0..=MAX_TXN_OPERATIONS).map(|n| n.to_string()).collect();
    let operations = MAX_TXN_OPERATIONS + 1;
    assert_eq!(
        store.commit(huge).await,
        Err(StoreError::TooManyOperations { operations })
    );
    assert_eq!(store.revision().await.unwrap(), Revision(0));

    let edge = Txn::new().put("k".repeat(MAX_KEY_BYTES), vec![7; MAX_VALUE_BYTES]);
    store.commit(edge).await.unwrap();
    let entry = store.get(&"k".repeat(MAX_KEY_BYTES)).await.unwrap().unwrap();
    assert_eq!(entry.value.len(), MAX_VALUE_BYTES);
}

pub(crate) async fn a_range_is_sorted_and_holds_only_its_prefix(store: &dyn Store) {
    for key in ["b/2", "a", "b/10", "b", "b0", "c/1", "b/é"] {
        put(store, key, key).await;
    }
    let below = |prefix: &'static str| async move {
        let range = store.range(prefix).await.unwrap();
        range.entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(below("b/").await, ["b/10", "b/2", "b/é"]);
    assert_eq!(below("").await, ["a", "b", "b/10", "b/2", "b/é", "b0", "c/1"]);
    assert_eq!(below("z").await, [""; 0]);
}

pub(crate) async fn a_range_under_writes_is_one_revision(store: &dyn Store) {
    let write = async {
        for n in 0..200_u32 {
            let number = n.to_string().into_bytes();
            store
                .commit(Txn::new().put("x/left", number.clone()).put("x/right", number))
                .await
                .unwrap();
        }
    };
    let read = async {
        loop {
            let range = store.range("x/").await.unwrap();
            if let [(_, left), (_, right)] = &range.entries[..] {
                assert_eq!((&left.value, left.modified), (&right.value, right.modified));
                assert_eq!(left.modified, range.revision);
            }
            if range.revision == Revision(200) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, read);
}

pub(crate) async fn a_watch_after_a_range_misses_nothing_and_repeats_nothing(store: &dyn Store) {
    const CHANGES: u64 = 150;
    let write = async {
        for n in 1..=CHANGES {
            put(store, "w/n", &n.to_string()).await;
        }
    };
    let observe = async {
        while store.revision().await.unwrap() < Revision(CHANGES / 3) {
            tokio::task::yield_now().await;
        }
        let range = store.range("w/").await.unwrap();
        let mut watch = store.watch("w/", range.revision).await.unwrap();
        for revision in range.revision.0 + 1..=CHANGES {
            let change = next(&mut watch).await.unwrap();
            assert_eq!(change.revision, Revision(revision));
            let [Event::Put { entry, .. }] = &change.events[..] else {
                panic!("{change:?}")
            };
            assert_eq!(*entry.value, *revision.to_string().as_bytes());
        }
    };
    tokio::join!(write, observe);
}

pub(crate) async fn a_watch_sees_whole_revisions_of_its_prefix_only(store: &dyn Store) {
    let mut watch = store.watch("in/", Revision(0)).await.unwrap();
    store
        .commit(Txn::new().put("in/a", *b"").put("out/a", *b"").put("in/b", *b""))
        .await
        .unwrap();
    put(store, "out/b", "").await;
    store
        .commit(
            Txn::new()
                .put("in/c", *b"")
                .delete("in/a")
                .delete("in/none")
                .delete("out/a"),
        )
        .await
        .unwrap();
    let first = next(&mut watch).await.unwrap();
    assert_eq!(
        (first.revision, names(&first)),
        (Revision(1), vec!["+in/a".to_owned(), "+in/b".to_owned()])
    );
    let second = next(&mut watch).await.unwrap();
    assert_eq!(
        (second.revision, names(&second)),
        (Revision(3), vec!["+in/c".to_owned(), "-in/a".to_owned()])
    );
}

pub(crate) async fn a_watch_of_the_past_is_answered_from_history(store: &dyn Store) {
    for n in 1..=5 {
        put(store, &format!("k{n}"), "").await;
    }
    let mut watch = store.watch("", Revision(3)).await.unwrap();
    assert_eq!(names(&next(&mut watch).await.unwrap()), ["+k4"]);
    assert_eq!(names(&next(&mut watch).await.unwrap()), ["+k5"]);
    let silent = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(silent.is_err(), "nothing more happened, yet {silent:?}");
}

pub(crate) async fn a_watch_of_forgotten_changes_is_refused_with_the_oldest(store: &dyn Store) {
    let value = "v".repeat(HISTORY_BYTES / 4);
    for n in 1..=10 {
        put(store, &format!("k{n}"), &value).await;
    }
    let Err(WatchError::Compacted { after, oldest }) = store.watch("", Revision(0)).await.map(drop) else {
        panic!("the history holds ten values in the room of four");
    };
    assert_eq!(after, Revision(0));
    assert!(oldest > Revision(4) && oldest < Revision(10), "{oldest}");
    let mut watch = store.watch("", oldest).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, Revision(oldest.0 + 1));
}

pub(crate) async fn a_slow_watch_is_told_and_ends(store: &dyn Store) {
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    let value = "v".repeat(HISTORY_BYTES / 4);
    for n in 1..=10 {
        put(store, &format!("k{n}"), &value).await;
    }
    let outcome = next(&mut watch).await;
    assert!(
        matches!(
            outcome,
            Err(WatchError::Compacted {
                after: Revision(0),
                ..
            })
        ),
        "{outcome:?}"
    );
    assert!(watch.next().await.is_none());
}

pub(crate) async fn a_lease_takes_its_keys_with_it_when_it_expires(store: &dyn Store) {
    let short = store.grant(TTL, at(0)).await.unwrap();
    let long = store.grant(TTL * 2, at(0)).await.unwrap();
    let txn = Txn::new()
        .put_leased("s1", *b"", short)
        .put_leased("s2", *b"", short)
        .put_leased("l", *b"", long);
    store.commit(txn.put("free", *b"")).await.unwrap();
    let mut watch = store.watch("", Revision(1)).await.unwrap();

    assert_eq!(store.expire(at(9)).await.unwrap().leases, []);
    assert_eq!(keys(store).await, ["free", "l", "s1", "s2"]);
    let expired = store.expire(at(10)).await.unwrap();
    assert_eq!((expired.leases, expired.revision), (vec![short], Revision(2)));
    assert_eq!(keys(store).await, ["free", "l"]);
    assert_eq!(names(&next(&mut watch).await.unwrap()), ["-s1", "-s2"]);
    assert_eq!(store.expire(at(100)).await.unwrap().leases, [long]);
    assert_eq!(store.expire(at(100)).await.unwrap().leases, []);
    assert_eq!(keys(store).await, ["free"]);
}

pub(crate) async fn a_lease_lives_on_by_keep_alive_and_not_past_its_end(store: &dyn Store) {
    let lease = store.grant(TTL, at(0)).await.unwrap();
    store
        .commit(Txn::new().put_leased("k", *b"", lease))
        .await
        .unwrap();
    assert_eq!(store.keep_alive(lease, at(9)).await.unwrap(), at(19));
    assert_eq!(store.expire(at(18)).await.unwrap().leases, []);
    assert_eq!(
        store.keep_alive(lease, at(19)).await,
        Err(StoreError::LeaseNotFound(lease))
    );
    assert_eq!(store.expire(at(19)).await.unwrap().leases, [lease]);
    assert_eq!(
        store.keep_alive(lease, at(19)).await,
        Err(StoreError::LeaseNotFound(lease))
    );
}

pub(crate) async fn revoking_deletes_the_keys_under_one_revision(store: &dyn Store) {
    let lease = store.grant(TTL, at(0)).await.unwrap();
    store
        .commit(
            Txn::new()
                .put_leased("a", *b"", lease)
                .put_leased("b", *b"", lease),
        )
        .await
        .unwrap();
    assert_eq!(store.revoke(lease).await.unwrap(), Revision(2));
    assert_eq!(keys(store).await, [""; 0]);
    assert_eq!(store.revoke(lease).await, Err(StoreError::LeaseNotFound(lease)));
    assert_eq!(store.expire(at(100)).await.unwrap().leases, []);
}

pub(crate) async fn a_key_belongs_to_the_lease_of_its_last_put(store: &dyn Store) {
    let first = store.grant(TTL, at(0)).await.unwrap();
    let second = store.grant(TTL, at(0)).await.unwrap();
    store
        .commit(
            Txn::new()
                .put_leased("moved", *b"", first)
                .put_leased("freed", *b"", first),
        )
        .await
        .unwrap();
    store
        .commit(Txn::new().put_leased("moved", *b"", second).put("freed", *b""))
        .await
        .unwrap();
    assert_eq!(store.get("moved").await.unwrap().unwrap().lease, Some(second));
    store.revoke(first).await.unwrap();
    assert_eq!(keys(store).await, ["freed", "moved"]);
    store.revoke(second).await.unwrap();
    assert_eq!(keys(store).await, ["freed"]);
}

pub(crate) async fn lease_ids_are_never_given_twice(store: &dyn Store) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let lease = store.grant(TTL, at(0)).await.unwrap();
        assert!(!seen.contains(&lease), "{lease} twice");
        store.revoke(lease).await.unwrap();
        seen.push(lease);
    }
}

pub(crate) async fn a_put_with_an_unknown_lease_is_refused(store: &dyn Store) {
    let unknown = LeaseId(4711);
    let outcome = store
        .commit(Txn::new().put("a", *b"").put_leased("b", *b"", unknown))
        .await;
    assert_eq!(outcome, Err(StoreError::LeaseNotFound(unknown)));
    assert_eq!(keys(store).await, [""; 0]);
}
