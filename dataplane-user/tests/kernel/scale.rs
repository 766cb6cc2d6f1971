//! How fast wires are made and what they cost: run by hand, in release, with `--ignored --nocapture`.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{
    desired::{Change, End, Mac, VethEnd, Wire, WireId},
    loader::Backend,
};
use tieline_lab::NetNs;

use crate::world::{World, all_well, name, netns_ref, wire};

/// How many workloads share the wires.
const WORKLOADS: usize = 64;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn nth(n: usize, workloads: &[NetNs]) -> Result<Wire> {
    let [high, low] = u16::try_from(n)?.to_be_bytes();
    let end = |side: u8, workload: usize| -> Result<End> {
        Ok(End::Veth(VethEnd {
            netns: netns_ref(&workloads[workload % WORKLOADS])?,
            name: name(&format!("w{side}-{n}")),
            mac: Mac([2, 0, 0, high, low, side]),
            addresses: vec![
                format!("10.{high}.{low}.{side}/32").parse()?,
                format!("fd00::{n:x}:{side}/128").parse()?,
            ],
            routes: Vec::new(),
            neighbours: Vec::new(),
        }))
    };
    Ok(Wire {
        id: WireId(format!("5f0cbb5e-1b8e-4b3e-9d53-{n:012}")),
        client: end(1, n)?,
        endpoint: end(2, n / WORKLOADS + 1 + n)?,
        ..wire(1, &workloads[0], &workloads[1])?
    })
}

#[test]
#[ignore = "measures; takes minutes with many wires (TIELINE_SCALE_WIRES, TIELINE_SCALE_BATCH)"]
#[expect(clippy::too_many_lines, reason = "one measurement after the other")]
fn wires_per_second_and_memory() -> Result<()> {
    let (wires, batch) = (
        number("TIELINE_SCALE_WIRES", 1000),
        number("TIELINE_SCALE_BATCH", 128),
    );
    let clsact = std::env::var("TIELINE_SCALE_BACKEND").is_ok_and(|backend| backend == "clsact");
    let backend = if clsact { Backend::Clsact } else { Backend::Auto };
    let mut world = World::new("scale", backend)?;
    world.config.max_wires = 16_384;
    let workloads: Vec<NetNs> = (0..WORKLOADS)
        .map(|_| NetNs::new("scale-w"))
        .collect::<Result<_>>()?;
    let plan: Vec<Wire> = (0..wires).map(|n| nth(n, &workloads)).collect::<Result<_>>()?;
    let ids: Vec<WireId> = plan.iter().map(|wire| wire.id.clone()).collect();
    let mut agent = world.start()?;
    world.snapshot(&mut agent, 1, Vec::new())?;
    let before = resident_kib()?;
    let mut generation = 1;
    let begun = Instant::now();
    world.agent.run(|| {
        for chunk in plan.chunks(batch) {
            generation += 1;
            let started = Instant::now();
            all_well(&agent.change(Change {
                generation,
                upsert: chunk.to_vec(),
                remove: Vec::new(),
            })?)?;
            if generation.is_multiple_of(16) {
                println!(
                    "at {generation}: {:.0} wires/s",
                    chunk.len() as f64 / started.elapsed().as_secs_f64()
                );
            }
        }
        Ok(())
    })?;
    let rate = wires as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{wires} wires in batches of {batch}: {rate:.0}/s; {} KiB more resident",
        resident_kib()? - before
    );

    let begun = Instant::now();
    let pass = world.pass(&mut agent)?;
    println!("full pass: {:?}, {} operations", begun.elapsed(), pass.operations);
    ensure!(pass.operations == 0, "{pass:?}");
    let begun = Instant::now();
    let views = agent.wires(None)?;
    println!(
        "status of {} wires with counters: {:?}",
        views.len(),
        begun.elapsed()
    );
    drop(agent);
    let begun = Instant::now();
    let mut agent = world.start()?;
    let outcome = world.snapshot(&mut agent, generation, plan)?;
    println!(
        "start and adoption: {:?}, {} operations",
        begun.elapsed(),
        outcome.operations
    );
    ensure!(outcome.operations == 0);

    let begun = Instant::now();
    world.agent.run(|| {
        for chunk in ids.chunks(batch) {
            generation += 1;
            all_well(&agent.change(Change {
                generation,
                upsert: Vec::new(),
                remove: chunk.to_vec(),
            })?)?;
        }
        Ok(())
    })?;
    println!("removal: {:.0}/s", wires as f64 / begun.elapsed().as_secs_f64());
    ensure!(world.interfaces()?.len() == 1);
    Ok(())
}
