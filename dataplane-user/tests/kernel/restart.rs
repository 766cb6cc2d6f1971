//! An agent that ends takes nothing with it, and the next one adopts what it finds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dataplane_user::{
    fake::{Fault, Faulty},
    kernel::Kernel,
    loader::{Config, LoadError},
    reconcile::Reconciler,
};
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};

use crate::{
    wires::BACKENDS,
    world::{World, all_well, endpoint_ip, plan, remove, wire},
};

#[test]
fn traffic_goes_on_without_an_agent_and_the_next_one_changes_nothing() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("adopt", backend)?;
        let (client, endpoint) = (NetNs::new("adopt-c")?, NetNs::new("adopt-e")?);
        let mut first = world.start()?;
        let wires = vec![wire(1, &client, &endpoint)?];
        all_well(&world.snapshot(&mut first, 7, wires.clone())?)?;
        let before = world.interfaces()?;
        let traffic = PingPlan {
            count: 400,
            interval: Duration::from_millis(2),
            ..PingPlan::default()
        };
        let report = std::thread::scope(|scope| -> Result<_> {
            let pings = scope.spawn(|| ping(&client, endpoint_ip(1), traffic));
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
            std::thread::sleep(Duration::from_millis(200));
            let mut second = world.start()?;
            let outcome = world.snapshot(&mut second, 7, wires.clone())?;
            ensure!(outcome.operations == 0, "{outcome:?}");
            all_well(&outcome)?;
            // The counters are the first agent's, for the slot is in the position.
            let views = second.wires(None)?;
            ensure!(views[0].client.counters.packets > 50, "{views:#?}");
            pings.join().expect("the pings end")
        })?;
        report.assert_all_answered()?;
        ensure!(world.interfaces()? == before);
    }
    Ok(())
}

#[test]
fn another_program_takes_over_under_traffic_without_loss() -> Result<()> {
    for backend in BACKENDS {
        let mut world = World::new("swap", backend)?;
        let (client, endpoint) = (NetNs::new("swap-c")?, NetNs::new("swap-e")?);
        let wires = vec![wire(1, &client, &endpoint)?];
        let mut agent = world.start()?;
        all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
        let traffic = PingPlan {
            count: 500,
            interval: Duration::from_millis(1),
            ..PingPlan::default()
        };
        let report = std::thread::scope(|scope| -> Result<_> {
            let pings = scope.spawn(|| ping(&client, endpoint_ip(1), traffic));
            let mut events = None;
            for sample in [1, 0, 1] {
                drop(agent);
                world.config.event_sample = sample;
                agent = world.start()?;
                events = agent.datapath_mut().take_events();
                ensure!(world.snapshot(&mut agent, 1, wires.clone())?.operations == 0);
                std::thread::sleep(Duration::from_millis(50));
            }
            let report = pings.join().expect("the pings end")?;
            // The last program samples every packet: it is the one that is attached.
            ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
            let mut events = events.expect("the ring is found");
            ensure!(
                events.next_event().is_some(),
                "no event from the program that took over"
            );
            Ok(report)
        })?;
        report.assert_all_answered()?;
    }
    Ok(())
}

#[test]
fn an_agent_that_dies_at_any_operation_leaves_nothing_after_the_next_start() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("die", backend)?;
        let (client, endpoint) = (NetNs::new("die-c")?, NetNs::new("die-e")?);
        let first = vec![wire(1, &client, &endpoint)?, wire(2, &client, &endpoint)?];
        let mut second = vec![wire(2, &client, &endpoint)?, wire(3, &client, &endpoint)?];
        second[0].mtu = 1300;
        let watch = || Watch {
            netns: vec![&world.agent, &client, &endpoint],
            dirs: vec![world.bpffs.path().to_owned()],
        };
        drop(world.start()?);
        let before = Leftovers::snapshot(&watch())?;
        for dies_at in 0.. {
            let mut agent = dying(&world)?;
            world.agent.run(|| {
                all_well(&agent.snapshot(plan(3 * dies_at + 1, first.clone()), Instant::now())?)?;
                agent
                    .datapath_mut()
                    .set_fault(Fault::From(usize::try_from(dies_at)?));
                let _ = agent.snapshot(plan(3 * dies_at + 2, second.clone()), Instant::now());
                Ok(())
            })?;
            let done = agent.datapath().count() <= usize::try_from(dies_at)?;
            drop(agent);
            let mut next = world.start()?;
            let outcome = world.snapshot(&mut next, 3 * dies_at + 2, second.clone())?;
            all_well(&outcome)?;
            ensure!(world.pass(&mut next)?.operations == 0);
            for n in [2, 3] {
                ping(&client, endpoint_ip(n), PingPlan::default())?.assert_all_answered()?;
            }
            let ids = [&second[0].id, &second[1].id];
            all_well(&world.change(&mut next, remove(3 * dies_at + 3, &ids))?)?;
            before.assert_same(&watch())?;
            if done {
                ensure!(dies_at > 10, "only {dies_at} operations were ever asked for");
                break;
            }
        }
    }
    Ok(())
}

fn dying(world: &World) -> Result<Reconciler<Faulty<Kernel>>> {
    world.agent.run(|| {
        let mut agent = Reconciler::new(Faulty::new(Kernel::open(&world.config)?, Fault::Never));
        agent.adopt()?;
        Ok(agent)
    })
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused() -> Result<()> {
    let world = World::new("second", BACKENDS[0])?;
    let first = world.start()?;
    let refused = world.agent.run(|| Ok(Kernel::open(&world.config).err()))?;
    ensure!(
        matches!(refused, Some(LoadError::SecondInstance { .. })),
        "{refused:?}"
    );
    drop(first);
    world.start()?;
    Ok(())
}

#[test]
fn another_table_size_is_refused_while_wires_exist_and_taken_when_none_do() -> Result<()> {
    let mut world = World::new("size", BACKENDS[0])?;
    let (client, endpoint) = (NetNs::new("size-c")?, NetNs::new("size-e")?);
    let wires = vec![wire(1, &client, &endpoint)?];
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    drop(agent);
    world.config.max_wires = 2048;
    let refused = world.agent.run(|| Ok(Kernel::open(&world.config).err()))?;
    ensure!(
        matches!(
            refused,
            Some(LoadError::TableSize {
                pinned: 1024,
                wanted: 2048,
                ..
            })
        ),
        "{refused:?}"
    );
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;

    world.config.max_wires = 1024;
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 2, Vec::new())?)?;
    drop(agent);
    world.config.max_wires = 2048;
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 3, wires)?)?;
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()
}

#[test]
fn what_cannot_start_says_what_to_do() -> Result<()> {
    let world = World::new("refuse", BACKENDS[0])?;
    let open = |config: Config| world.agent.run(|| Ok(Kernel::open(&config).err()));
    let no_bpffs = Config {
        bpffs: "/tmp".into(),
        ..world.config.clone()
    };
    ensure!(matches!(open(no_bpffs)?, Some(LoadError::NoBpffs { .. })));
    let no_wires = Config {
        max_wires: 0,
        ..world.config.clone()
    };
    ensure!(matches!(open(no_wires)?, Some(LoadError::MaxWires { value: 0 })));
    Ok(())
}
