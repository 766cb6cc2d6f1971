//! `kill -9` at any moment: what was acknowledged is there, and nothing is there by half.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tieline_store::{RedbStore, Revision, Store as _, Txn};

const ROUNDS: u32 = 12;
const WRITERS: u32 = 4;
const STORE_VARIABLE: &str = "TIELINE_STORE_KILL_TEST";

/// The process that is killed. Each writer puts its counter under two keys in one transaction and prints the
/// revision and the counter when the store has acknowledged it.
#[test]
#[ignore = "started by acknowledged_commits_survive_kill_9, which kills it"]
fn victim() {
    let path = std::env::var(STORE_VARIABLE).expect("only started by acknowledged_commits_survive_kill_9");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let store = std::sync::Arc::new(RedbStore::open(path).unwrap());
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = std::sync::Arc::clone(&store);
            writers.spawn(async move { write_for_ever(&store, writer).await });
        }
        writers.join_all().await;
    });
}

async fn write_for_ever(store: &RedbStore, writer: u32) {
    let (left, right) = keys(writer);
    let mut counter = store
        .get(&left)
        .await
        .unwrap()
        .map_or(0, |entry| number(&entry.value));
    loop {
        counter += 1;
        let value = counter.to_string().into_bytes();
        let txn = Txn::new().put(&left, value.clone()).put(&right, value);
        let revision = store.commit(txn).await.unwrap();
        // One write call: a line is printed whole or not at all.
        std::io::stdout()
            .write_all(format!("ack {writer} {counter} {revision}\n").as_bytes())
            .unwrap();
    }
}

#[tokio::test]
async fn acknowledged_commits_survive_kill_9() {
    let directory = tempfile::Builder::new().prefix("tl-store-").tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut acknowledged = vec![(0_u64, 0_u64); WRITERS as usize];
    let mut total = 0;
    for round in 0..ROUNDS {
        // From "hardly open" to "well under way".
        let lines = run_and_kill(&path, Duration::from_millis(u64::from(13 + round * 29)));
        total += lines.len();
        for (writer, counter, revision) in lines {
            acknowledged[usize::try_from(writer).unwrap()] = (counter, revision);
        }
        check(&path, &acknowledged).await;
    }
    assert!(
        total > 100,
        "only {total} commits in all rounds: the test proves nothing"
    );
}

fn run_and_kill(path: &Path, life: Duration) -> Vec<(u64, u64, u64)> {
    let mut victim: Child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::victim",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(STORE_VARIABLE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(victim.stdout.take().unwrap());
    let mut first = String::new();
    while !first.starts_with("ack ") {
        first.clear();
        assert_ne!(
            output.read_line(&mut first).unwrap(),
            0,
            "the victim died by itself"
        );
    }
    thread::sleep(life);
    victim.kill().unwrap();
    victim.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    first.push_str(&rest);
    // A last line that was cut short was acknowledged nevertheless, but says nothing that could be checked.
    let whole = first.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(parse).collect()
}

async fn check(path: &Path, acknowledged: &[(u64, u64)]) {
    let store = RedbStore::open(path).unwrap();
    let revision = store.revision().await.unwrap();
    for (writer, &(counter, at)) in (0_u32..).zip(acknowledged) {
        let (left, right) = keys(writer);
        let (left, right) = (store.get(&left).await.unwrap(), store.get(&right).await.unwrap());
        assert_eq!(
            left.as_ref().map(|e| (&e.value, e.modified)),
            right.as_ref().map(|e| (&e.value, e.modified))
        );
        let stored = left.as_ref().map_or(0, |entry| number(&entry.value));
        // One commit may have become durable without its acknowledgement having been heard.
        assert!(
            stored == counter || stored == counter + 1,
            "writer {writer}: heard {counter}, stored {stored}"
        );
        assert!(revision >= Revision(at));
    }
}

fn keys(writer: u32) -> (String, String) {
    (format!("w{writer}/left"), format!("w{writer}/right"))
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn parse(line: &str) -> (u64, u64, u64) {
    let numbers: Vec<u64> = line
        .split(' ')
        .skip(1)
        .map(|word| word.parse().unwrap())
        .collect();
    let [writer, counter, revision] = numbers[..] else {
        panic!("line {line:?}")
    };
    (writer, counter, revision)
}
