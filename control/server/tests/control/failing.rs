//! Stores that fail, and control that stops: what was acknowledged stays, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tieline_control::Readiness;
use tieline_proto::tieline::agent::v1::session_down::Message as Down;
use tieline_store::{
    Entry, Expired, LeaseId, MemoryStore, Range, Revision, Store, StoreError, Txn, Watch, WatchError,
};
use tonic::Code;

use crate::agent::{FakeAgent, planned};
use crate::calls::{request, request_for};
use crate::world::{World, eventually};

/// A store that loses the commits that it is told to lose.
struct Flaky {
    store: MemoryStore,
    commits: AtomicU64,
    /// Commits from this number on fail, as many as `failures` says.
    fail_from: AtomicU64,
    failures: AtomicU64,
}

impl Flaky {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::new(),
            commits: AtomicU64::new(0),
            fail_from: AtomicU64::new(u64::MAX),
            failures: AtomicU64::new(0),
        })
    }

    fn fail_the_next(&self, failures: u64) {
        self.failures.store(failures, Ordering::SeqCst);
        self.fail_from
            .store(self.commits.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for Flaky {
    fn describe(&self) -> String {
        "flaky".to_owned()
    }
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.store.range(prefix).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst);
        let from = self.fail_from.load(Ordering::SeqCst);
        if number >= from && number - from < self.failures.load(Ordering::SeqCst) {
            let cause = "no space left on device".to_owned();
            return Err(StoreError::Unavailable {
                store: self.describe(),
                action: "commit",
                cause,
            });
        }
        self.store.commit(txn).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.store.watch(prefix, after).await
    }
    async fn grant(&self, ttl: Duration, now: SystemTime) -> Result<LeaseId, StoreError> {
        self.store.grant(ttl, now).await
    }
    async fn keep_alive(&self, lease: LeaseId, now: SystemTime) -> Result<SystemTime, StoreError> {
        self.store.keep_alive(lease, now).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.store.revoke(lease).await
    }
    async fn expire(&self, now: SystemTime) -> Result<Expired, StoreError> {
        self.store.expire(now).await
    }
}

#[tokio::test]
async fn a_lost_commit_fails_its_calls_and_loses_nothing_that_was_acknowledged() {
    let store = Flaky::new();
    let world = World::on(store.clone()).await;
    let session = world.with_node().await.obey();
    let mut workload = world.agents().await;
    workload.request_connection(request("kept", 1)).await.unwrap();

    store.fail_the_next(1);
    let status = workload.request_connection(request("lost", 2)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("nothing was changed"), "{status:?}");
    let end = session
        .await
        .unwrap()
        .status
        .expect("the session ends with a reason");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");

    let (agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
    assert_eq!(planned(&snapshot), BTreeSet::from(["kept".to_owned()]));
    agent.ack(snapshot.generation).await;
    let _session = agent.obey();
    workload.request_connection(request("lost", 2)).await.unwrap();
    let listed: BTreeSet<_> = world
        .connections()
        .await
        .into_iter()
        .map(|one| one.connection.unwrap().id)
        .collect();
    assert_eq!(listed, BTreeSet::from(["kept".to_owned(), "lost".to_owned()]));
    assert_eq!(world.handle().readiness(), Readiness::Ready);
    assert!(world.metric("tieline_control_commit_failures_total") > 0.5);
}

#[tokio::test]
async fn a_store_that_stays_away_makes_control_not_ready_and_its_return_makes_it_ready() {
    let store = Flaky::new();
    let world = World::on(store.clone()).await;
    let _session = world.with_node().await.obey();
    store.fail_the_next(u64::MAX);
    let mut workload = world.agents().await;
    let first = workload.request_connection(request("c1", 1)).await.unwrap_err();
    let second = workload.request_connection(request("c1", 1)).await.unwrap_err();
    assert_eq!(
        (first.code(), second.code()),
        (Code::Unavailable, Code::Unavailable)
    );
    assert!(matches!(world.handle().readiness(), Readiness::NotReady(why) if why.contains("no space left")));

    store.fail_the_next(0);
    eventually("control is ready again", async || {
        world.handle().readiness() == Readiness::Ready
    })
    .await;
    let (agent, _) = FakeAgent::join(&world, "n1", 0).await;
    let _session = agent.obey();
    workload.request_connection(request("c1", 1)).await.unwrap();
}

#[tokio::test]
async fn random_commit_failures_under_load_lose_nothing_acknowledged_and_leave_nothing_half() {
    let store = Flaky::new();
    let world = World::on(store.clone()).await;
    let mut acknowledged = BTreeSet::new();
    world.with_node().await;
    for round in 0..6_u64 {
        let (agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
        agent.ack(snapshot.generation).await;
        let session = agent.obey();
        let mut asked = tokio::task::JoinSet::new();
        for n in 0..30_u64 {
            let mut workload = world.agents().await;
            let id = format!("r{round}-{n}");
            asked.spawn(async move {
                (
                    id.clone(),
                    workload.request_connection(request(&id, round * 100 + n)).await,
                )
            });
            if n == 7 + round {
                store.fail_the_next(1);
            }
        }
        for (id, outcome) in asked.join_all().await {
            if outcome.is_ok() {
                acknowledged.insert(id);
            }
        }
        session.abort();
    }
    assert!(!acknowledged.is_empty());
    let listed: BTreeSet<_> = world
        .connections()
        .await
        .into_iter()
        .map(|one| one.connection.unwrap().id)
        .collect();
    assert!(
        acknowledged.is_subset(&listed),
        "lost: {:?}",
        acknowledged.difference(&listed)
    );
    let (_agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
    let planned = planned(&snapshot);
    assert!(acknowledged.is_subset(&planned) && planned.is_subset(&listed));
}

#[tokio::test]
async fn a_restart_keeps_connections_and_generations_and_ends_what_ran_out() {
    let mut world = World::on_redb().await;
    let mut agent = world.with_node().await;
    let mut generation = 0;
    for (id, client, lifetime) in [("kept", 1, 3_600_000), ("short", 2, 600)] {
        let mut workload = world.agents().await;
        let message = request_for(id, client, Duration::from_millis(lifetime));
        let asked = tokio::spawn(async move { workload.request_connection(message).await });
        generation = agent.delta().await.generation;
        agent.ack(generation).await;
        asked.await.unwrap().unwrap();
    }
    let before = world.connections().await;
    world.stop().await.unwrap();
    let end = agent.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert!(!world.socket().exists(), "the socket goes with control");
    tokio::time::sleep(Duration::from_millis(700)).await;

    world.start().await;
    let after = world.connections().await;
    assert_eq!(
        after.len(),
        1,
        "the lease that ended meanwhile is expired at start"
    );
    assert_eq!(
        after[0],
        *before
            .iter()
            .find(|one| one.connection == after[0].connection)
            .unwrap()
    );
    let (mut agent, snapshot) = FakeAgent::join(&world, "n1", generation).await;
    assert!(
        snapshot.generation > generation,
        "the plan without the expired wire is newer"
    );
    assert_eq!(planned(&snapshot), BTreeSet::from(["kept".to_owned()]));
    agent.ack(snapshot.generation).await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("new", 3)).await });
    let Ok(Down::Delta(delta)) = agent.next().await else {
        panic!("a change follows")
    };
    assert_eq!((delta.parent, delta.upsert.len()), (snapshot.generation, 1));
    agent.ack(delta.generation).await;
    asked.await.unwrap().unwrap();
}
