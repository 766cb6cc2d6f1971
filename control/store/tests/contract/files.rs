//! What only a store in a file can show: what stays, and how opening fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tieline_store::{
    FORMAT_VERSION, OpenError, RedbStore, Revision, Store as _, StoreError, Txn, WatchError,
};

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("tl-store-").tempdir().unwrap()
}

fn refusal(path: &Path) -> OpenError {
    RedbStore::open(path)
        .map(drop)
        .expect_err("the store must not open")
}

#[tokio::test]
async fn entries_revisions_and_leases_outlive_the_process() {
    let directory = directory();
    let path = directory.path().join("deep/er/store.redb");
    let now = UNIX_EPOCH + Duration::from_secs(1000);
    let (range, lease) = {
        let store = RedbStore::open(&path).unwrap();
        let lease = store.grant(Duration::from_secs(10), now).await.unwrap();
        store
            .commit(Txn::new().put("a", *b"1").put_leased("b", *b"2", lease))
            .await
            .unwrap();
        store.commit(Txn::new().put("a", *b"3")).await.unwrap();
        (store.range("").await.unwrap(), lease)
    };
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.range("").await.unwrap(), range);
    let Err(WatchError::Compacted { oldest, .. }) = store.watch("", Revision(1)).await.map(drop) else {
        panic!("the history does not outlive the process");
    };
    assert_eq!(oldest, Revision(2));
    assert!(store.watch("", range.revision).await.is_ok());
    let later = store.grant(Duration::from_secs(10), now).await.unwrap();
    assert!(later > lease, "{later} was given before");
    assert_eq!(
        store.expire(now + Duration::from_secs(10)).await.unwrap().leases,
        [lease, later]
    );
    assert_eq!(store.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn a_store_in_use_is_refused_and_free_again_after_drop() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = RedbStore::open(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::Locked { path: named } if named == path));
    store.commit(Txn::new().put("a", *b"1")).await.unwrap();
    drop(store);
    assert!(RedbStore::open(&path).unwrap().get("a").await.unwrap().is_some());
}

#[test]
fn files_that_are_no_store_are_refused_and_left_alone() {
    let directory = directory();
    let whole = {
        let path = directory.path().join("whole.redb");
        drop(RedbStore::open(&path).unwrap());
        fs::read(&path).unwrap()
    };
    let mut flipped = whole.clone();
    flipped[..4096].iter_mut().skip(9).for_each(|byte| *byte ^= 0x5a);
    let damaged: [(&str, &[u8]); 3] = [
        ("text", b"apiVersion: v1\nkind: ConfigMap\n"),
        ("cut", &whole[..whole.len() / 3]),
        ("flipped", &flipped),
    ];
    for (name, content) in damaged {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, OpenError::Corrupt { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(fs::read(&path).unwrap() == content, "{name} was written to");
    }
}

#[test]
fn a_directory_and_an_impossible_directory_are_refused_by_name() {
    let directory = directory();
    let error = refusal(directory.path());
    assert!(
        error.to_string().contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refusal(&file.join("store.redb"));
    assert!(
        matches!(&error, OpenError::Directory { path, .. } if *path == file),
        "{error:?}"
    );
}

#[test]
fn a_later_format_is_refused_with_both_numbers() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    drop(RedbStore::open(&path).unwrap());
    {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let meta = TableDefinition::<&str, u64>::new("meta");
        txn.open_table(meta)
            .unwrap()
            .insert("format", FORMAT_VERSION + 1)
            .unwrap();
        txn.commit().unwrap();
    }
    let error = refusal(&path);
    assert!(
        matches!(error, OpenError::NewerFormat { found, supported, .. }
            if found == FORMAT_VERSION + 1 && supported == FORMAT_VERSION),
        "{error:?}"
    );
}

#[tokio::test]
async fn concurrent_callers_share_disk_syncs_and_all_become_durable() {
    const CALLERS: usize = 400;
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = std::sync::Arc::new(RedbStore::open(&path).unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let store = std::sync::Arc::clone(&store);
        // Every fourth call is refused; its neighbours in the same file transaction must not notice.
        let txn = Txn::new().put(format!("k{n:03}"), n.to_string().into_bytes());
        let txn = if n % 4 == 0 {
            txn.if_revision("absent", Revision(1))
        } else {
            txn
        };
        callers.spawn(async move { (n, store.commit(txn).await) });
    }
    let outcomes = callers.join_all().await;
    let (refused, done): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_err());
    assert_eq!((refused.len(), done.len()), (CALLERS / 4, CALLERS * 3 / 4));
    assert!(
        refused
            .iter()
            .all(|(n, outcome)| n % 4 == 0 && matches!(outcome, Err(StoreError::Conflict(_))))
    );
    drop(store);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.revision().await.unwrap(), Revision(CALLERS as u64 * 3 / 4));
    for (n, revision) in done {
        let entry = store.get(&format!("k{n:03}")).await.unwrap().unwrap();
        assert_eq!(entry.modified, revision.unwrap());
    }
}
