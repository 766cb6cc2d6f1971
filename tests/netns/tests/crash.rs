//! Processes are killed at random points of set-ups and tear-downs: nothing acknowledged is lost, nothing leaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngSeed, TestRunner},
};
use tieline_lab::{Leftovers, NetNs, Watch, eventually};
use tieline_proto::connection::Connection;
use tieline_tests_netns::{Api, Foreign, Mode, Node, endpoint, netns_url, request, seed, service};

/// Set-ups and tear-downs that must be acknowledged in all.
const CHANGES: usize = 200;
const SERVICE: &str = "gold-network";

/// One kill: when, of whom, and how long before it starts again.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// After so many more acknowledged calls,
    calls: usize,
    /// and so many hundredths of a call's duration: a random point of the next one, however fast the machine is.
    hundredths: u32,
    control: bool,
    dead: Duration,
}

/// What the kills are timed by.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    /// Duration of the last acknowledged call, in microseconds.
    call: AtomicU64,
    stop: AtomicBool,
}

/// What the client knows: exactly what the node has acknowledged.
#[derive(Default)]
struct Ledger {
    up: BTreeMap<String, Connection>,
    closed: BTreeSet<String>,
    acknowledged: usize,
    refused: usize,
}

struct Stage {
    node: Node,
    api: Api,
    clients: Vec<NetNs>,
    endpoints: Vec<NetNs>,
}

impl Stage {
    fn new() -> Result<Self> {
        let node = Node::start("crash", Mode::Apart)?;
        let api = node.api();
        let many = |label| (0..2).map(|_| NetNs::new(label)).collect::<Result<Vec<_>>>();
        let (clients, endpoints) = (many("client")?, many("endpoint")?);
        api.apply(service(SERVICE, "IP"))?;
        for (number, netns) in endpoints.iter().enumerate() {
            api.register(endpoint(
                &format!("endpoint-{number}"),
                SERVICE,
                &netns_url(netns),
            ))?;
        }
        Ok(Self {
            node,
            api,
            clients,
            endpoints,
        })
    }

    fn watch(&self) -> Watch<'_> {
        let mut watch = Watch::default()
            .interfaces(self.node.netns())
            .dir(self.node.bpffs().path());
        for netns in self.clients.iter().chain(&self.endpoints) {
            watch = watch.interfaces(netns);
        }
        watch
    }

    /// Interfaces besides loopback in the workloads' namespaces, and their addresses.
    fn ends(&self) -> Result<(usize, Vec<ipnet::IpNet>)> {
        let (mut count, mut addresses) = (0, Vec::new());
        for netns in self.clients.iter().chain(&self.endpoints) {
            netns.net(|net| {
                for link in net.links()?.into_iter().filter(|link| link.name != "lo") {
                    count += 1;
                    addresses.extend(net.addresses(&link.name)?);
                }
                Ok(())
            })?;
        }
        Ok((count, addresses))
    }

    fn listed(&self) -> Result<BTreeMap<String, Connection>> {
        let connections = self
            .api
            .connections()?
            .into_iter()
            .filter_map(|status| status.connection);
        Ok(connections
            .map(|connection| (connection.id.clone(), connection))
            .collect())
    }
}

/// Sets up and tears down until enough is acknowledged; a call that fails leaves its wire in doubt.
fn work(api: &Api, clients: &[String], progress: &Progress) -> Ledger {
    let mut ledger = Ledger::default();
    let mut number = 0;
    while ledger.acknowledged < CHANGES && !progress.stop.load(Ordering::Relaxed) {
        let oldest = ledger.up.keys().next().cloned();
        let begin = Instant::now();
        let outcome = match oldest {
            Some(id) if ledger.up.len() >= 6 => {
                let connection = ledger.up.remove(&id).unwrap_or_default();
                api.close(connection).map(|()| {
                    ledger.closed.insert(id);
                })
            }
            _ => {
                number += 1;
                let id = format!("crash-{number:04}");
                let url = &clients[number % clients.len()];
                api.request(request(&id, SERVICE, url)).map(|connection| {
                    ledger.up.insert(id, connection);
                })
            }
        };
        match outcome {
            Ok(()) => {
                ledger.acknowledged += 1;
                let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                progress.call.store(micros, Ordering::Relaxed);
                progress
                    .acknowledged
                    .store(ledger.acknowledged, Ordering::Relaxed);
            }
            Err(_) => {
                ledger.refused += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    ledger
}

fn kills() -> impl Strategy<Value = Kill> {
    (1..16usize, 0..150u32, any::<bool>(), 0..50u64).prop_map(|(calls, hundredths, control, dead)| Kill {
        calls,
        hundredths,
        control,
        dead: Duration::from_millis(dead),
    })
}

/// Waits for the moment of the kill, or for the end of the work.
fn wait_for(kill: Kill, progress: &Progress, worker_is_done: impl Fn() -> bool) -> Result<()> {
    let target = progress.acknowledged.load(Ordering::Relaxed) + kill.calls;
    eventually(
        Duration::from_secs(20),
        "the next calls to be acknowledged",
        || Ok(worker_is_done() || progress.acknowledged.load(Ordering::Relaxed) >= target),
    )?;
    let call = Duration::from_micros(progress.call.load(Ordering::Relaxed));
    thread::sleep(call.min(Duration::from_secs(1)) * kill.hundredths / 100);
    Ok(())
}

#[test]
fn kill_at_random_points_leaks_nothing_and_loses_nothing_acknowledged() {
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    });
    let mut stage = Stage::new().unwrap();
    let foreign = Foreign::plant(&stage.node, &[]).unwrap();
    let before = Leftovers::snapshot(&stage.watch()).unwrap();
    let urls: Vec<String> = stage.clients.iter().map(netns_url).collect();
    let (api, progress) = (stage.api.clone(), Progress::default());
    let mut count = 0;
    let ledger = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&api, &urls, &progress));
        while !worker.is_finished() {
            let kill = kills().new_tree(&mut runner).unwrap().current();
            let killed = wait_for(kill, &progress, || worker.is_finished())
                .and_then(|()| carry_out(&mut stage.node, kill));
            if let Err(error) = killed {
                progress.stop.store(true, Ordering::Relaxed);
                panic!("{kill:?}: {error:#}");
            }
            count += 1;
        }
        worker.join().unwrap()
    });
    eprintln!(
        "{count} kills, {} acknowledged, {} refused",
        ledger.acknowledged, ledger.refused
    );
    assert!(count >= 5, "the node was hardly ever killed");
    compare(&stage, &ledger).unwrap();
    for (_, connection) in stage.listed().unwrap() {
        stage.api.close(connection).unwrap();
    }
    eventually(Duration::from_secs(5), "all positions to go", || {
        Ok(stage.node.kernel()?.positions.is_empty())
    })
    .unwrap();
    // The processes are new ones, the rest is as at the beginning.
    before.assert_same_objects(&stage.watch()).unwrap();
    foreign.assert_untouched(&stage.node).unwrap();
}

fn carry_out(node: &mut Node, kill: Kill) -> Result<()> {
    if kill.control {
        node.kill_control()?;
        thread::sleep(kill.dead);
        node.start_control()?;
    } else {
        node.kill_agent()?;
        thread::sleep(kill.dead);
        node.launch_agent()?;
    }
    node.wait_until_ready()
}

/// Ends of a wire here: its client's, its endpoint's, and the one held in reserve at another endpoint, which has the
/// endpoint's addresses.
const ENDS: usize = 3;

/// What control lists, what the kernel holds and what was acknowledged must be one.
fn compare(stage: &Stage, ledger: &Ledger) -> Result<()> {
    eventually(Duration::from_secs(10), "the node to settle", || {
        let listed = stage.listed()?.len();
        Ok(stage.node.kernel()?.positions.len() == ENDS * listed && stage.ends()?.0 == ENDS * listed)
    })
    .or_else(|error| {
        let (ends, _) = stage.ends()?;
        let kernel = stage.node.kernel()?;
        let listed: Vec<_> = stage.listed()?.into_keys().collect();
        Err(error.context(format!(
            "{} positions, {ends} ends, listed {listed:?}",
            kernel.positions.len()
        )))
    })?;
    let listed = stage.listed()?;
    let lost: Vec<_> = ledger.up.keys().filter(|id| !listed.contains_key(*id)).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let back: Vec<_> = ledger
        .closed
        .iter()
        .filter(|id| listed.contains_key(*id))
        .collect();
    ensure!(back.is_empty(), "closed and still there: {back:?}");
    let reserves = (ENDS - 2) * listed.len();
    stage.node.kernel()?.assert_whole_with(listed.len(), reserves)?;
    let (_, addresses) = stage.ends()?;
    let different: BTreeSet<_> = addresses.iter().map(ipnet::IpNet::addr).collect();
    ensure!(
        different.len() == 4 * listed.len(),
        "an address was given out twice: {addresses:?}"
    );
    ensure!(
        addresses.len() == 2 * ENDS * listed.len(),
        "{} addresses for {} wires",
        addresses.len(),
        listed.len()
    );
    Ok(())
}
