//! From the store back to a control that answers, and what many connections take there and in its memory.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_store::{RedbStore, Store as _, Txn};
use tokio::runtime::Runtime;

use super::{CONNECTION_BYTES, Plan, RESTORE, world, world::World};
use crate::{report::Collector, stop, tieline::ControlProcess};

/// The key prefix and the file that control keeps its registry in.
const PREFIX: &str = "registry/";
const FILE: &str = "control.redb";

/// Measures the parts in this process, and then a control that starts.
pub(super) fn run(plan: &Plan, world: &World, collector: &mut Collector) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let state = tempfile::Builder::new().prefix("tl-bench-").tempdir()?;
    let file = state.path().join(FILE);
    write(&runtime, &file, world.records())?;
    let count = f64::from(plan.connections);
    let mut bytes = |path, round, all: f64| {
        collector.add(path, CONNECTION_BYTES, Some(plan.connections), round, all / count);
    };
    let connections = world
        .records()
        .iter()
        .filter(|(key, _)| key.starts_with("connection"));
    let encoded: usize = connections.map(|(key, value)| key.len() + value.len()).sum();
    bytes("record", 0, encoded as f64);
    bytes("redb file", 0, std::fs::metadata(&file)?.len() as f64);
    let empty = tempfile::Builder::new().prefix("tl-bench-").tempdir()?;
    for round in 0..plan.rounds {
        eprintln!("restoring, round {} of {}", round + 1, plan.rounds);
        stop::check()?;
        let mut add = |path, took: Duration| {
            collector.add(path, RESTORE, Some(plan.connections), round, took.as_secs_f64());
        };
        let begun = Instant::now();
        let records = read(&runtime, &file)?;
        add("reading the store", begun.elapsed());
        let begun = Instant::now();
        let registry = world::restore(records)?;
        add("the registry", begun.elapsed());
        let restored = registry.counts().connections;
        drop(registry);
        ensure!(
            restored == plan.connections as usize,
            "{restored} connections are back"
        );

        let idle = ControlProcess::start(empty.path())?;
        add("control without connections", idle.started_in());
        let full = ControlProcess::start(state.path())?;
        add("control", full.started_in());
        let status = full.control().status()?;
        ensure!(
            status.connections == plan.connections,
            "control has {} connections of {}",
            status.connections,
            plan.connections
        );
        let grown = full.memory()? - idle.memory()?;
        collector.add(
            "control's memory",
            CONNECTION_BYTES,
            Some(plan.connections),
            round,
            grown / count,
        );
        full.stop()?;
        idle.stop()?;
    }
    Ok(())
}

fn write(runtime: &Runtime, file: &Path, records: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let store = RedbStore::open(file)?;
    let put =
        |txn: Txn, (key, value): (&String, &Vec<u8>)| txn.put(format!("{PREFIX}{key}"), value.as_slice());
    let txn = records.iter().fold(Txn::new(), put);
    runtime.block_on(store.commit(txn)).context("write the store")?;
    Ok(())
}

fn read(runtime: &Runtime, file: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let store = RedbStore::open(file)?;
    let range = runtime.block_on(store.range(PREFIX)).context("read the store")?;
    let record = |(key, entry): (String, tieline_store::Entry)| {
        let key = key.strip_prefix(PREFIX).unwrap_or(&key).to_owned();
        (key, entry.value.to_vec())
    };
    Ok(range.entries.into_iter().map(record).collect())
}
