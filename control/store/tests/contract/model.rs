//! Random histories against a model that is simple enough to be right: two maps and a clock.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use tieline_store::{
    Change, Compare, Conflict, Entry, Event, Expected, Expired, LeaseId, MemoryStore, Put, RedbStore,
    Revision, Store, StoreError, Txn,
};
use tokio_stream::StreamExt as _;

const KEYS: [&str; 5] = ["a", "a/1", "a/2", "b/1", "c"];

#[derive(Clone, Debug)]
enum Step {
    Commit {
        compares: Vec<(usize, CompareKind)>,
        puts: Vec<(usize, u8, Option<u64>)>,
        deletes: Vec<usize>,
    },
    Grant {
        ttl: u64,
    },
    KeepAlive {
        lease: u64,
    },
    Revoke {
        lease: u64,
    },
    Expire,
    Pass {
        seconds: u64,
    },
    Reopen,
}

/// What a generated compare expects: mostly things that hold, so that transactions get through.
#[derive(Clone, Copy, Debug)]
enum CompareKind {
    Absent,
    Present,
    Wrong,
}

#[derive(Default)]
struct Model {
    now: u64,
    revision: u64,
    entries: BTreeMap<String, Entry>,
    granted: u64,
    leases: BTreeMap<u64, (u64, u64)>,
    changes: Vec<Change>,
}

impl Model {
    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now)
    }

    fn txn(&self, step: &Step) -> Txn {
        let Step::Commit {
            compares,
            puts,
            deletes,
        } = step
        else {
            return Txn::new();
        };
        let modified = |key: &str| self.entries.get(key).map_or(Revision(0), |entry| entry.modified);
        let expected = |key: &str, kind| match kind {
            CompareKind::Absent => Expected::Absent,
            CompareKind::Present => Expected::At(modified(key)),
            CompareKind::Wrong => Expected::At(Revision(modified(key).0 + 1)),
        };
        let compare = |&(key, kind): &(usize, CompareKind)| Compare {
            key: KEYS[key].to_owned(),
            expected: expected(KEYS[key], kind),
        };
        let put = |&(key, value, lease): &(usize, u8, Option<u64>)| Put {
            key: KEYS[key].to_owned(),
            value: [value].into(),
            lease: lease.map(LeaseId),
        };
        Txn {
            compares: compares.iter().map(compare).collect(),
            puts: puts.iter().map(put).collect(),
            deletes: deletes.iter().map(|&key| KEYS[key].to_owned()).collect(),
        }
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, StoreError> {
        let mut written: Vec<&String> = Vec::new();
        for key in txn.puts.iter().map(|put| &put.key).chain(&txn.deletes) {
            if written.contains(&key) {
                return Err(StoreError::WrittenTwice { key: key.clone() });
            }
            written.push(key);
        }
        for Compare { key, expected } in &txn.compares {
            let found = self.entries.get(key).map(|entry| entry.modified);
            if !matches!((expected, found), (Expected::Absent, None))
                && found.map(Expected::At) != Some(*expected)
            {
                return Err(StoreError::Conflict(Conflict {
                    key: key.clone(),
                    expected: *expected,
                    found,
                }));
            }
        }
        if let Some(lease) = txn
            .puts
            .iter()
            .filter_map(|put| put.lease)
            .find(|lease| !self.leases.contains_key(&lease.0))
        {
            return Err(StoreError::LeaseNotFound(lease));
        }
        let revision = Revision(self.revision + 1);
        let mut events = Vec::new();
        for put in &txn.puts {
            let created = self.entries.get(&put.key).map_or(revision, |entry| entry.created);
            let entry = Entry {
                value: put.value.clone(),
                created,
                modified: revision,
                lease: put.lease,
            };
            self.entries.insert(put.key.clone(), entry.clone());
            events.push(Event::Put {
                key: put.key.clone(),
                entry,
            });
        }
        self.delete(txn.deletes.clone(), &mut events);
        Ok(self.record(events))
    }

    fn delete(&mut self, keys: Vec<String>, events: &mut Vec<Event>) {
        for key in keys {
            if self.entries.remove(&key).is_some() {
                events.push(Event::Deleted { key });
            }
        }
    }

    fn record(&mut self, events: Vec<Event>) -> Revision {
        if !events.is_empty() {
            self.revision += 1;
            self.changes.push(Change {
                revision: Revision(self.revision),
                events,
            });
        }
        Revision(self.revision)
    }

    fn end_leases(&mut self, ending: &[u64]) -> Revision {
        let mut events = Vec::new();
        for lease in ending {
            self.leases.remove(lease);
            let attached = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.lease == Some(LeaseId(*lease)));
            let keys = attached.map(|(key, _)| key.clone()).collect();
            self.delete(keys, &mut events);
        }
        self.record(events)
    }

    fn keep_alive(&mut self, lease: u64) -> Result<SystemTime, StoreError> {
        let now = self.now;
        match self.leases.get_mut(&lease) {
            Some((ttl, deadline)) if *deadline > now => {
                *deadline = now + *ttl;
                Ok(UNIX_EPOCH + Duration::from_secs(*deadline))
            }
            _ => Err(StoreError::LeaseNotFound(LeaseId(lease))),
        }
    }

    fn revoke(&mut self, lease: u64) -> Result<Revision, StoreError> {
        if !self.leases.contains_key(&lease) {
            return Err(StoreError::LeaseNotFound(LeaseId(lease)));
        }
        Ok(self.end_leases(&[lease]))
    }

    fn expire(&mut self) -> Expired {
        let mut due: Vec<(u64, u64)> = self
            .leases
            .iter()
            .map(|(id, (_, deadline))| (*deadline, *id))
            .filter(|(d, _)| *d <= self.now)
            .collect();
        due.sort_unstable();
        let ids: Vec<u64> = due.into_iter().map(|(_, id)| id).collect();
        let revision = self.end_leases(&ids);
        Expired {
            leases: ids.into_iter().map(LeaseId).collect(),
            revision,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let kind = prop_oneof![
        3 => Just(CompareKind::Present),
        2 => Just(CompareKind::Absent),
        1 => Just(CompareKind::Wrong)
    ];
    let lease = prop_oneof![4 => Just(None), 3 => (1_u64..6).prop_map(Some)];
    let commit = (
        prop::collection::vec((key.clone(), kind), 0..2),
        prop::collection::vec((key.clone(), any::<u8>(), lease), 0..4),
        prop::collection::vec(key, 0..2),
    );
    prop_oneof![
        8 => commit.prop_map(|(compares, puts, deletes)| Step::Commit { compares, puts, deletes }),
        3 => (1_u64..20).prop_map(|ttl| Step::Grant { ttl }),
        2 => (1_u64..6).prop_map(|lease| Step::KeepAlive { lease }),
        1 => (1_u64..6).prop_map(|lease| Step::Revoke { lease }),
        2 => Just(Step::Expire),
        3 => (1_u64..8).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// Carries one step out on both and compares what they answer.
async fn agree_on(store: &dyn Store, model: &mut Model, step: &Step) {
    let now = model.time();
    match step {
        Step::Commit { .. } => {
            let txn = model.txn(step);
            let expected = model.commit(&txn);
            assert_eq!(store.commit(txn).await, expected);
        }
        Step::Grant { ttl } => {
            model.granted += 1;
            model.leases.insert(model.granted, (*ttl, model.now + ttl));
            let granted = store.grant(Duration::from_secs(*ttl), now).await;
            assert_eq!(granted, Ok(LeaseId(model.granted)));
        }
        Step::KeepAlive { lease } => {
            assert_eq!(
                store.keep_alive(LeaseId(*lease), now).await,
                model.keep_alive(*lease)
            );
        }
        Step::Revoke { lease } => assert_eq!(store.revoke(LeaseId(*lease)).await, model.revoke(*lease)),
        Step::Expire => assert_eq!(store.expire(now).await, Ok(model.expire())),
        Step::Pass { seconds } => model.now += seconds,
        Step::Reopen => {}
    }
    let range = store.range("").await.unwrap();
    assert_eq!(range.revision, Revision(model.revision));
    assert_eq!(
        range.entries,
        model.entries.clone().into_iter().collect::<Vec<_>>()
    );
}

/// The changes that a watch of `prefix` tells are the model's, from `after` on.
async fn agree_on_changes(store: &dyn Store, model: &Model, prefix: &str, after: Revision) {
    let mut expected = Vec::new();
    for change in model.changes.iter().filter(|change| change.revision > after) {
        let events: Vec<Event> = change
            .events
            .iter()
            .filter(|event| event.key().starts_with(prefix))
            .cloned()
            .collect();
        if !events.is_empty() {
            expected.push(Change {
                revision: change.revision,
                events,
            });
        }
    }
    let mut watch = store.watch(prefix, after).await.unwrap();
    for change in expected {
        assert_eq!(watch.next().await, Some(Ok(change)));
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn memory_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        block_on(async {
            let (store, mut model) = (MemoryStore::new(), Model::default());
            for step in &steps {
                agree_on(&store, &mut model, step).await;
            }
            agree_on_changes(&store, &model, "", Revision(0)).await;
            agree_on_changes(&store, &model, "a/", Revision(model.revision / 2)).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn redb_does_what_the_model_does_also_across_reopening(steps in prop::collection::vec(step(), 1..60)) {
        block_on(async {
            let directory = tempfile::Builder::new().prefix("tl-store-").tempdir().unwrap();
            let path = directory.path().join("store.redb");
            let (mut store, mut model, mut opened_at) = (RedbStore::open(&path).unwrap(), Model::default(), Revision(0));
            for step in &steps {
                if matches!(step, Step::Reopen) {
                    drop(store);
                    store = RedbStore::open(&path).unwrap();
                    opened_at = Revision(model.revision);
                }
                agree_on(&store, &mut model, step).await;
            }
            agree_on_changes(&store, &model, "", opened_at).await;
            agree_on_changes(&store, &model, "a/", opened_at).await;
        });
    }
}
