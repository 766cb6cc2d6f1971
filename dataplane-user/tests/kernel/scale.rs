//! How fast wires are made and what they cost: run by hand, in release, with `--ignored --nocapture`.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{
    desired::{Change, End, Mac, VethEnd, Wire, WireId},
    kernel::Kernel,
    loader::Backend,
    reconcile::Reconciler,
};
use tieline_lab::NetNs;

use crate::world::{World, all_well, leading_to, name, netns_ref, remove, upsert, wire};

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

/// Processor time of this process so far, in milliseconds: it does not depend on what else the machine does.
fn cpu_ms() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("fields")?.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Ok(ticks * 10)
}

/// Makes and removes single wires on a node that has many, and prints the medians.
fn single_changes(
    world: &World,
    agent: &mut Reconciler<Kernel>,
    generation: &mut u64,
    spare: &[Wire],
) -> Result<()> {
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for wire in spare {
        for (change, times) in [
            (upsert(*generation + 1, vec![wire.clone()]), &mut made),
            (remove(*generation + 2, &[&wire.id]), &mut removed),
        ] {
            let begun = Instant::now();
            all_well(&world.change(agent, change)?)?;
            times.push(begun.elapsed());
        }
        *generation += 2;
    }
    made.sort();
    removed.sort();
    println!(
        "one wire: made in {:?}, removed in {:?} (medians of {})",
        made[made.len() / 2],
        removed[removed.len() / 2],
        spare.len()
    );
    Ok(())
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
            forwards: false,
            policies: Vec::new(),
            name_servers: Vec::new(),
        }))
    };
    Ok(Wire {
        id: WireId(format!("5f0cbb5e-1b8e-4b3e-9d53-{n:012}")),
        client: end(1, n)?,
        branches: vec![leading_to(end(2, n / WORKLOADS + 1 + n)?)],
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
    let backend = match std::env::var("TIELINE_SCALE_BACKEND").as_deref() {
        Ok("clsact") => Backend::Clsact,
        Ok("tcx") => Backend::Tcx,
        _ => Backend::Auto,
    };
    let mut world = World::new("scale", backend)?;
    world.config.max_wires = 16_384;
    let workloads: Vec<NetNs> = (0..WORKLOADS)
        .map(|_| NetNs::new("scale-w"))
        .collect::<Result<_>>()?;
    let plan: Vec<Wire> = (0..wires).map(|n| nth(n, &workloads)).collect::<Result<_>>()?;
    let ids: Vec<WireId> = plan.iter().map(|wire| wire.id.clone()).collect();
    let mut agent = world.start()?;
    world.snapshot(&mut agent, 1, Vec::new())?;
    let mut generation = 1;
    let spare: Vec<Wire> = (wires..wires + 21)
        .map(|n| nth(n, &workloads))
        .collect::<Result<_>>()?;
    single_changes(&world, &mut agent, &mut generation, &spare)?;
    let (before, cpu) = (resident_kib()?, cpu_ms()?);
    let begun = Instant::now();
    world.agent.run(|| {
        for chunk in plan.chunks(batch) {
            generation += 1;
            let started = Instant::now();
            let change = Change {
                generation,
                upsert: chunk.to_vec(),
                remove: Vec::new(),
            };
            all_well(&agent.change(change, Instant::now())?)?;
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
        "{wires} wires in batches of {batch}: {rate:.0}/s; {:.2} ms of processor time each; {} KiB more resident",
        (cpu_ms()? - cpu) as f64 / wires as f64,
        resident_kib()? - before
    );
    single_changes(&world, &mut agent, &mut generation, &spare)?;

    let begun = Instant::now();
    let pass = world.pass(&mut agent)?;
    println!("full pass: {:?}, {} operations", begun.elapsed(), pass.operations);
    ensure!(pass.operations == 0, "{pass:?}");
    let (begun, mut patrol, mut parts) = (Instant::now(), agent.patrol(), Vec::new());
    while !patrol.is_done() {
        let part = Instant::now();
        let outcome = world
            .agent
            .run(|| Ok(agent.go_on(&mut patrol, 64, Instant::now())?))?;
        parts.push(part.elapsed());
        ensure!(outcome.operations == 0, "{outcome:?}");
    }
    parts.sort();
    println!(
        "patrol: {:?} in {} parts, half of them in {:?}, the longest in {:?}",
        begun.elapsed(),
        parts.len(),
        parts[parts.len() / 2],
        parts[parts.len() - 1]
    );
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

    let (begun, cpu) = (Instant::now(), cpu_ms()?);
    world.agent.run(|| {
        for chunk in ids.chunks(batch) {
            generation += 1;
            let change = Change {
                generation,
                upsert: Vec::new(),
                remove: chunk.to_vec(),
            };
            all_well(&agent.change(change, Instant::now())?)?;
        }
        Ok(())
    })?;
    println!(
        "removal: {:.0}/s; {:.2} ms of processor time each",
        wires as f64 / begun.elapsed().as_secs_f64(),
        (cpu_ms()? - cpu) as f64 / wires as f64
    );
    ensure!(world.interfaces()?.len() == 1);
    Ok(())
}
