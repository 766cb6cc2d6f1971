//! Many callers at once: they share commits, and what control adds to a lone call is small.

use std::time::{Duration, Instant};

use prost::Message as _;

use crate::agent::FakeAgent;
use crate::calls::{close, request};
use crate::world::World;

/// Requests `count` connections with `in_flight` callers at once, all over one connection as an agent does.
async fn request_all(world: &World, count: u64, in_flight: u64) -> Duration {
    let workload = world.agents().await;
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..in_flight {
        let mut workload = workload.clone();
        callers.spawn(async move {
            for n in (caller..count).step_by(usize::try_from(in_flight).unwrap()) {
                workload
                    .request_connection(request(&format!("c{n}"), n))
                    .await
                    .unwrap();
            }
        });
    }
    callers.join_all().await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_share_commits() {
    const COUNT: u64 = 1000;
    let world = World::on_redb().await;
    let _agent = world.with_node().await.obey();
    let commits = "tieline_control_commit_seconds_count";
    let before = world.metric(commits);
    let took = request_all(&world, COUNT, 64).await;
    let commits = world.metric(commits) - before;
    println!(
        "redb: {:.0} Requests/s, {commits} commits for {COUNT} Requests",
        1000.0 / took.as_secs_f64()
    );
    assert_eq!(world.connections().await.len(), 1000);
    // Each Request is two commands, the Request itself and the node's report.
    assert!(
        commits < 500.0,
        "{commits} commits for {COUNT} Requests: nothing was shared"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it in release with --nocapture, alone on the machine"]
async fn measure() {
    for (name, world) in [
        ("memory", World::with(|_, _| {}).await),
        ("redb", World::on_redb().await),
    ] {
        let _obedient = world.with_node().await.obey();
        let took = request_all(&world, 10_000, 64).await;
        println!(
            "{name}: {:.0} Requests/s with 64 in flight",
            10_000.0 / took.as_secs_f64()
        );
        let (sum, count) = (
            "tieline_control_commit_seconds_sum",
            "tieline_control_commit_seconds_count",
        );
        let commits = world.metric(count);
        println!(
            "{name}: {commits} commits of {:.3} ms",
            world.metric(sum) / commits * 1000.0
        );
        let mut workload = world.agents().await;
        let mut times = Vec::new();
        for n in 0..500 {
            let begun = Instant::now();
            workload
                .request_connection(request(&format!("single{n}"), 50_000 + n))
                .await
                .unwrap();
            times.push(begun.elapsed());
            workload
                .close_connection(close(&format!("single{n}"), 50_000 + n))
                .await
                .unwrap();
        }
        times.sort();
        println!(
            "{name}: a lone Request takes {:?} (median), {:?} (p99)",
            times[250], times[495]
        );
        let (_agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
        let (wires, bytes) = (snapshot.wires.len(), snapshot.encoded_len());
        println!("{name}: a snapshot of {wires} wires has {bytes} bytes");
        assert!(bytes < tieline_control::MAX_SESSION_MESSAGE_BYTES / 2);
    }
}
