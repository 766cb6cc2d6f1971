use super::*;
use crate::agent::{
    testing::{self, ControlSession, FakeControl, delta, lost_wire, machine, soon, until, wire, wire_counts},
    worker,
};

/// A session with a worker on a machine in memory, and the control it talks to.
struct Bench {
    folder: tempfile::TempDir,
    control: FakeControl,
    status: Arc<Status>,
    jobs: mpsc::Sender<Job>,
    shutdown: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = FakeControl::start(folder.path());
        let status = Arc::new(Status::new("tl-node"));
        let (fake, ..) = machine(256);
        let make = |_| Ok((fake, ()));
        let worker = worker::spawn(make, &folder.path().join("netns"), Arc::clone(&status)).unwrap();
        soon(worker.started).await.unwrap().unwrap();
        let session = Session {
            channel: dial::channel(&testing::address(folder.path())).unwrap(),
            datapath: status.datapath().cloned().unwrap(),
            jobs: worker.jobs.clone(),
            status: Arc::clone(&status),
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(session.run(shutdown.clone()));
        Self {
            folder,
            control,
            status,
            jobs: worker.jobs,
            shutdown,
        }
    }

    /// The next session, past its Hello.
    async fn session(&mut self) -> ControlSession {
        let mut session = self.control.session().await;
        session.hello().await;
        session
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn a_session_begins_with_what_the_node_is() {
    let mut bench = Bench::new().await;
    let hello = bench.control.session().await.hello().await;
    assert_eq!(
        (hello.node.as_str(), hello.generation, hello.max_wires),
        ("tl-node", 0, 256)
    );
    assert_eq!(hello.abi_version, ABI_VERSION);
    assert!(!hello.attach_backend.is_empty());
}

#[tokio::test]
async fn plans_and_changes_are_acknowledged_with_their_failures() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.snapshot(4, vec![wire(1), lost_wire(2)]).await;
    assert_eq!(session.ack_ids().await, (4, vec!["c2".to_owned()]));
    session
        .delta(delta(4, vec![wire(3), lost_wire(4)], &["c1", "c2"]))
        .await;
    let ack = session.ack().await;
    assert_eq!((ack.generation, ack.failures.len()), (5, 1));
    let failure = &ack.failures[0];
    assert_eq!(
        (failure.connection_id.as_str(), failure.kind()),
        ("c4", proto::FailureKind::NetnsGone)
    );
    assert_eq!(
        (failure.field.as_str(), failure.value.as_str()),
        ("mechanism.parameters[inodeURL]", "/run/netns/tl-gone")
    );
    assert_eq!(bench.status.session(), SessionState::Up);
    assert_eq!(bench.status.wire_counts(), wire_counts(1, 1));
}

#[tokio::test]
async fn a_change_that_does_not_fit_begins_a_new_session() {
    let mut bench = Bench::new().await;
    let mut first = bench.session().await;
    first.snapshot(4, vec![wire(1)]).await;
    first.ack().await;
    first.delta(delta(7, vec![wire(2)], &[])).await;
    let mut second = bench.control.session().await;
    assert_eq!(
        second.hello().await.generation,
        4,
        "nothing of the change was made"
    );
    assert!(first.next().await.is_none(), "the old session has ended");
    second.snapshot(8, vec![wire(1), wire(2)]).await;
    assert_eq!(second.ack_ids().await, (8, vec![]));
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_the_plan_is_ended() {
    let mut bench = Bench::new().await;
    let session = bench.session().await;
    session.delta(delta(0, vec![wire(1)], &[])).await;
    bench.session().await;
    let SessionState::Away { reason } = bench.status.session() else {
        panic!("no session is up")
    };
    assert!(reason.contains("the whole plan was expected"), "{reason}");
}

#[tokio::test]
async fn control_that_dies_is_found_again_and_wires_stay() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.snapshot(2, vec![wire(1)]).await;
    session.ack().await;
    drop(session);
    bench.control.kill();
    until(|| matches!(bench.status.session(), SessionState::Away { .. })).await;
    bench.control = FakeControl::start(bench.folder.path());
    let mut again = bench.control.session().await;
    assert_eq!(again.hello().await.generation, 2);
    assert_eq!(bench.status.wire_counts(), wire_counts(1, 0));
    again.snapshot(3, vec![wire(1)]).await;
    assert_eq!(again.ack_ids().await, (3, vec![]));
    until(|| bench.status.session() == SessionState::Up).await;
}

#[tokio::test]
async fn a_burst_of_changes_is_merged_and_each_is_acknowledged_in_order() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.snapshot(0, vec![]).await;
    session.ack().await;
    let (release, wait) = std::sync::mpsc::channel::<()>();
    bench
        .jobs
        .send(Job::Look(Box::new(move |_| wait.recv().unwrap())))
        .await
        .unwrap();
    for n in 0..100 {
        session.delta(delta(u64::from(n), vec![wire(n)], &[])).await;
    }
    // The queue is full of what control sent while the worker was busy.
    until(|| bench.jobs.max_capacity() - bench.jobs.capacity() >= 100).await;
    release.send(()).unwrap();
    for generation in 1..=100 {
        assert_eq!(session.ack_ids().await, (generation, vec![]));
    }
    let passes = testing::metric(
        &bench.status,
        "tieline_reconcile_pass_seconds_count{kind=\"delta\"}",
    );
    assert_eq!(passes, "1", "one pass for a hundred changes");
    assert_eq!(bench.status.wire_counts(), wire_counts(100, 0));
}

#[tokio::test]
async fn shutdown_ends_the_session() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.snapshot(1, vec![]).await;
    session.ack().await;
    bench.shutdown.cancel();
    assert!(session.next().await.is_none());
    until(|| matches!(bench.status.session(), SessionState::Away { .. })).await;
}

/// The next sign of life.
async fn keep_alive(session: &mut ControlSession) -> proto::KeepAlive {
    match session.next().await {
        Some(session_up::Message::KeepAlive(told)) => told,
        other => panic!("a sign of life was due, not {other:?}"),
    }
}

#[tokio::test]
async fn a_node_says_that_it_is_there_as_often_as_the_plan_asks_and_who_is_not() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    let snapshot = proto::Snapshot {
        keep_alive_interval: 20,
        ..testing::snapshot(1, Vec::new())
    };
    session.send(session_down::Message::Snapshot(snapshot)).await;
    let mut signs = 0;
    while signs < 3 {
        match session.next().await {
            Some(session_up::Message::KeepAlive(told)) => {
                assert_eq!(told, proto::KeepAlive::default());
                signs += 1;
            }
            Some(session_up::Message::Ack(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let gone = proto::Workload {
        netns: Some(proto::NetworkNamespace {
            path: "/run/netns/tl-gone".to_owned(),
            device: 4,
            inode: 1,
        }),
        ..proto::Workload::default()
    };
    let place = crate::agent::tenants::place_of(&gone, "");
    bench.status.tenants.registered("nse-1".to_owned(), place);
    loop {
        let told = keep_alive(&mut session).await;
        if told != proto::KeepAlive::default() {
            assert_eq!(told.endpoints_gone, ["nse-1"]);
            break;
        }
    }
}

#[tokio::test]
async fn without_an_interval_only_what_happens_is_told() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.snapshot(1, Vec::new()).await;
    session.ack().await;
    let silent = tokio::time::timeout(Duration::from_millis(100), session.next());
    assert!(silent.await.is_err(), "nothing was asked for");
}
