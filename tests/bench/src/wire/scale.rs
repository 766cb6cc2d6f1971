//! What a node does with one, a hundred and ten thousand wires: how fast it makes them, what they cost in memory,
//! and whether a packet notices the others.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use super::{
    ADDED_NS, CLOSE, Chosen, DATAPATH_SETUP, FIRST_PACKET, MAPS, Plan, RSS, SETUP, TIELINE, stage::Stage,
};
use crate::{
    measure::FrameMeter,
    path::Path,
    report::Collector,
    stop,
    tieline::{
        Crowd, IN_FLIGHT,
        datapath::{self, Datapath},
    },
};

const MIB: f64 = 1024.0 * 1024.0;
/// From this number on, making all of them once says enough.
const MANY: u32 = 1000;

/// Measures at each number of wires, each with a node of its own.
pub(crate) fn run(plan: &Plan, frames: &mut FrameMeter, collector: &mut Collector) -> Result<()> {
    if !plan.chosen.iter().any(|metric| metric.is_about_scale()) {
        return Ok(());
    }
    for &count in &plan.wires {
        eprintln!("{count} wires");
        if plan.wants(Chosen::DatapathSetupPerS) {
            datapath_alone(count, plan, collector)
                .with_context(|| format!("the datapath alone with {count} wires"))?;
        }
        if !plan.chosen.iter().any(|metric| metric.needs_a_node()) {
            continue;
        }
        at(count, plan, frames, collector).with_context(|| format!("with {count} wires"))?;
    }
    Ok(())
}

fn at(count: u32, plan: &Plan, frames: &mut FrameMeter, collector: &mut Collector) -> Result<()> {
    let stage = Stage::build(&plan.attach)?;
    if plan.wants(Chosen::AgentRssMib) {
        collector.add(TIELINE, RSS, Some(0), count, stage.node().memory()? / MIB);
    }
    let crowd = Crowd::gather(stage.node(), count, &[])?;
    let rounds = if count < MANY { plan.rounds } else { 1 };
    for round in 0..rounds {
        let start = Instant::now();
        let wires = crowd.connect(stage.node())?;
        let setup = f64::from(count) / start.elapsed().as_secs_f64();
        if plan.wants(Chosen::SetupPerS) {
            collector.add(TIELINE, SETUP, Some(count), round, setup);
        }
        if round + 1 == rounds {
            while_connected(count, &stage, plan, frames, collector)?;
        }
        let start = Instant::now();
        stage.node().api().close_all(&wires, IN_FLIGHT)?;
        let close = f64::from(count) / start.elapsed().as_secs_f64();
        if plan.wants(Chosen::SetupPerS) {
            collector.add(TIELINE, CLOSE, Some(count), round, close);
        }
    }
    stage.end()
}

/// How fast the datapath half alone lays `count` wires, in changes as large as the agent makes them under this load.
fn datapath_alone(count: u32, plan: &Plan, collector: &mut Collector) -> Result<()> {
    let mut datapath = Datapath::start(&plan.attach)?;
    let workloads = Crowd::workloads(count);
    let fresh = |label: &str| {
        (0..workloads)
            .map(|_| Ok(Arc::new(NetNs::new(label)?)))
            .collect::<Result<Vec<_>>>()
    };
    let (clients, endpoints) = (fresh("bench-dc")?, fresh("bench-ds")?);
    let between = clients.iter().zip(&endpoints).cycle();
    let wires = (0..count)
        .zip(between)
        .map(|(n, (a, b))| datapath::wire(n, a, b))
        .collect::<Result<Vec<_>>>()?;
    for round in 0..if count < MANY { plan.rounds } else { 1 } {
        stop::check()?;
        let start = Instant::now();
        datapath.lay(&wires, IN_FLIGHT)?;
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        collector.add(TIELINE, DATAPATH_SETUP, Some(count), round, rate);
        datapath.remove(&wires, IN_FLIGHT)?;
    }
    Ok(())
}

/// What is measured beside `count` wires that are up.
fn while_connected(
    count: u32,
    stage: &Stage,
    plan: &Plan,
    frames: &mut FrameMeter,
    collector: &mut Collector,
) -> Result<()> {
    if plan.wants(Chosen::AgentRssMib) {
        collector.add(TIELINE, RSS, Some(count), 0, stage.node().memory()? / MIB);
    }
    if plan.wants(Chosen::MapMib) {
        collector.add(TIELINE, MAPS, Some(count), 0, stage.node().map_bytes()? / MIB);
    }
    if plan.wants(Chosen::FirstPacketMs) {
        for attempt in 0..4 * plan.rounds {
            stop::check()?;
            let ms = stage.first_packet_ms(&format!("bench-first-{attempt}"))?;
            collector.add(TIELINE, FIRST_PACKET, Some(count), attempt, ms);
        }
    }
    if plan.wants(Chosen::AddedNsPerPacket) {
        let (direct, wire) = (Path::direct()?, stage.path()?);
        for round in 0..plan.rounds {
            let reference = frames.ns_per_packet(&direct, plan.effort.frame_chunks)?;
            let ns = frames.ns_per_packet(&wire, plan.effort.frame_chunks)?;
            collector.add(TIELINE, ADDED_NS, Some(count), round, ns - reference);
        }
    }
    Ok(())
}
