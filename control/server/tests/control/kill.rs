//! `kill -9` of control under load: what it acknowledged is there when it is back, and plans go on where they were.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tieline_control::{Config, StoreConfig};
use tieline_proto::tieline::agent::v1::Snapshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::{FakeAgent, planned};
use crate::calls::{close, request};
use crate::world::{Agents, PATIENCE, World, eventually};

const DIRECTORY_VARIABLE: &str = "TIELINE_CONTROL_KILL_TEST";
const ROUNDS: u64 = 5;
const CALLERS: u64 = 8;

fn config(directory: &Path) -> Config {
    let mut config = Config::new().unwrap();
    config.unix = Some(directory.join("control.sock"));
    config.store = StoreConfig::Redb(directory.join("control.redb"));
    config
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by acknowledged_connections_survive_kill_9_of_control, which kills it"]
async fn victim() {
    let directory = std::env::var(DIRECTORY_VARIABLE).expect("only started by the test that kills it");
    tieline_control::run(config(Path::new(&directory)), CancellationToken::new())
        .await
        .unwrap();
}

/// A control in a process of its own; killed when dropped.
struct Victim(Child);

impl Victim {
    async fn start(world: &World) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::victim",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIRECTORY_VARIABLE, world.directory())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the new control listens", async || {
            std::os::unix::net::UnixStream::connect(world.socket()).is_ok()
        })
        .await;
        Self(child)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself, which the test notices elsewhere.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What callers heard.
#[derive(Clone, Default)]
struct Heard {
    /// Connections that stand.
    standing: BTreeSet<String>,
    /// Asked for, or asked to be closed, without an answer: either is right.
    unknown: BTreeSet<String>,
}

/// Shared by the callers.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Heard>>);

impl Notes {
    fn write(&self, note: impl FnOnce(&mut Heard)) {
        note(&mut self.0.lock().unwrap());
    }

    fn read(&self) -> Heard {
        self.0.lock().unwrap().clone()
    }
}

/// Requests connections and closes every third, until control is gone.
async fn call_until_killed(mut workload: Agents, round: u64, caller: u64, notes: Notes) {
    for n in 0_u64.. {
        let (id, client) = (
            format!("r{round}-{caller}-{n}"),
            round * 1_000_000 + caller * 100_000 + n,
        );
        notes.write(|heard| _ = heard.unknown.insert(id.clone()));
        if workload.request_connection(request(&id, client)).await.is_err() {
            return;
        }
        if n % 3 == 2 {
            if workload.close_connection(close(&id, client)).await.is_err() {
                return;
            }
            notes.write(|heard| _ = heard.unknown.remove(&id));
        } else {
            notes.write(|heard| {
                heard.unknown.remove(&id);
                heard.standing.insert(id);
            });
        }
    }
}

/// Control has what was acknowledged and nothing that nobody asked for, plans it, and gave no address twice.
async fn check(world: &World, snapshot: &Snapshot, heard: &Heard) {
    let (mut listed, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for status in world.connections().await {
        let connection = status.connection.unwrap();
        let ip = connection.context.unwrap().ip_context.unwrap();
        for address in ip.src_ip_addrs.into_iter().chain(ip.dst_ip_addrs) {
            assert!(addresses.insert(address.clone()), "{address} was given twice");
        }
        listed.insert(connection.id);
    }
    let lost: Vec<_> = heard.standing.difference(&listed).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let invented: Vec<_> = listed
        .iter()
        .filter(|id| !heard.standing.contains(*id) && !heard.unknown.contains(*id))
        .collect();
    assert!(invented.is_empty(), "closed or never asked for: {invented:?}");
    assert_eq!(planned(snapshot), listed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_connections_survive_kill_9_of_control() {
    // This process has no control of its own: the world lends its directory and its clients.
    let mut world = World::with(|_, _| {}).await;
    world.stop().await.unwrap();
    let (notes, mut generation) = (Notes::default(), 0);
    for round in 0..=ROUNDS {
        let victim = Victim::start(&world).await;
        let (agent, snapshot) = FakeAgent::join(&world, "n1", generation).await;
        assert!(
            snapshot.generation >= generation,
            "plan {} after {generation}",
            snapshot.generation
        );
        check(&world, &snapshot, &notes.read()).await;
        agent.ack(snapshot.generation).await;
        let agent = agent.obey();
        if round == 0 {
            world.offer().await;
        }
        if round == ROUNDS {
            break;
        }
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(call_until_killed(
                world.agents().await,
                round,
                caller,
                notes.clone(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(40 + 170 * round)).await;
        drop(victim);
        tokio::time::timeout(PATIENCE, callers.join_all())
            .await
            .expect("callers notice");
        generation = agent.await.unwrap().generation;
    }
    let standing = notes.read().standing.len();
    assert!(
        standing > 50,
        "only {standing} connections: the test proves nothing"
    );
}
