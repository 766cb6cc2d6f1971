//! Many at once: parallel clients, and how long connecting takes.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, eventually, slow};
use tieline_tests_netns::{Api, Mode, Scene, Server, Watched, Wire, netns_url, request, service};

use super::{SERVICE, ping_both_ways};

const CLIENTS: usize = 10;

fn clients() -> Result<Vec<NetNs>> {
    (0..CLIENTS).map(|_| NetNs::new("nsc")).collect()
}

/// Each client asks for a wire at the same moment, on a thread of its own.
fn all_at_once(api: &Api, clients: &[NetNs], id: impl Fn(usize) -> String + Sync) -> Result<Vec<Wire>> {
    let ask = |number: usize, url: String| Wire::request(api, request(&id(number), SERVICE, &url));
    thread::scope(|scope| {
        let asked = clients.iter().enumerate();
        let ask = &ask;
        let asked: Vec<_> = asked
            .map(|(number, netns)| scope.spawn(move || ask(number, netns_url(netns))))
            .collect();
        let answers = asked
            .into_iter()
            .map(|one| one.join().ok().context("a client panicked")?);
        answers.collect()
    })
}

fn netns_of(servers: impl IntoIterator<Item = Server>) -> impl Iterator<Item = NetNs> {
    servers.into_iter().map(|server| server.netns)
}

#[test]
fn parallel_clients() -> Result<()> {
    let scene = Scene::start("parallel", Mode::Apart)?;
    let servers = scene.serve(service(SERVICE, "IP"), ["nse-1", "nse-2"])?;
    let clients = clients()?;
    let begin = Instant::now();
    let wires = all_at_once(&scene.api, &clients, |number| format!("nsc-{number}"))?;
    let took = begin.elapsed();
    ensure!(
        took < slow(Duration::from_secs(2)),
        "{CLIENTS} clients took {took:?}"
    );
    let mut given = BTreeSet::new();
    for wire in &wires {
        for address in wire.client.iter().chain(&wire.endpoint) {
            ensure!(given.insert(*address), "{address} was given out twice");
        }
    }
    for server in &servers {
        let name = |wire: &&Wire| wire.connection.network_service_endpoint_name == server.name();
        let count = wires.iter().filter(name).count();
        ensure!(
            count == CLIENTS / 2,
            "{} serves {count} of {CLIENTS}",
            server.name()
        );
    }
    let watched = clients
        .iter()
        .zip(&wires)
        .map(|(netns, wire)| Watched::start(netns, wire));
    for one in watched.collect::<Result<Vec<_>>>()? {
        one.finish()?.assert_nothing()?;
    }
    // The other endpoint is each wire's backup.
    scene.node.kernel()?.assert_whole_with(CLIENTS, CLIENTS)?;
    scene.finish(clients.into_iter().chain(netns_of(servers)))
}

/// Open files and threads of the node's processes.
fn held(scene: &Scene) -> Result<(usize, usize)> {
    let (mut files, mut threads) = (0, 0);
    for pid in scene.node.pids() {
        files += fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        threads += fs::read_dir(format!("/proc/{pid}/task"))?.count();
    }
    Ok((files, threads))
}

/// After many connections, the processes hold what they held before: no file, no thread more.
#[test]
fn cleanup() -> Result<()> {
    let scene = Scene::start("cleanup", Mode::Apart)?;
    let servers = scene.serve(service(SERVICE, "IP"), ["nse-1", "nse-2"])?;
    let clients = clients()?;
    let round = |number: usize| {
        for wire in all_at_once(&scene.api, &clients, |client| format!("nsc-{number}-{client}"))? {
            scene.api.close(wire.connection)?;
        }
        anyhow::Ok(())
    };
    round(0)?;
    let before = held(&scene)?;
    for number in 1..6 {
        round(number)?;
    }
    // A thread of a pool may come later; a leak would be one for each of the connections.
    let room = CLIENTS / 2;
    eventually(
        Duration::from_secs(5),
        "the processes to hold what they held",
        || {
            let after = held(&scene)?;
            Ok(after.0 <= before.0 + room && after.1 <= before.1 + room)
        },
    )
    .with_context(|| format!("files and threads: {before:?} before, {:?} after", held(&scene)))?;
    scene.finish(clients.into_iter().chain(netns_of(servers)))
}

/// Each client connects once, one after the other.
#[test]
fn bench_connection_one_time() -> Result<()> {
    let scene = Scene::start("onetime", Mode::Whole)?;
    let servers = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let clients = clients()?;
    let mut times = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let begin = Instant::now();
        let wire = scene.connect(client, &format!("nsc-{number}"), SERVICE)?;
        times.push(begin.elapsed());
        ping_both_ways(client, &servers[0].netns, &wire)?;
    }
    times.sort();
    eprintln!(
        "Request: {:?} median, {:?} at most",
        times[CLIENTS / 2],
        times[CLIENTS - 1]
    );
    ensure!(times[CLIENTS / 2] < slow(Duration::from_millis(100)), "{times:?}");
    scene.finish(clients.into_iter().chain(netns_of(servers)))
}

/// Clients move: each closes its wire and opens the next one, and finds its interface anew.
#[test]
fn bench_connection_moving() -> Result<()> {
    let scene = Scene::start("moving", Mode::Whole)?;
    let servers = scene.serve(service(SERVICE, "IP"), ["nse-1", "nse-2"])?;
    let client = NetNs::new("nsc")?;
    let begin = Instant::now();
    for number in 0..2 * CLIENTS {
        let wire = scene.connect(&client, "nsc", SERVICE)?;
        ensure!(wire.client_interface == "nsm-1", "{wire:?}");
        // Round robin: every second one.
        ping_both_ways(&client, &servers[number % 2].netns, &wire)?;
        scene.api.close(wire.connection)?;
    }
    let each = begin.elapsed() / u32::try_from(2 * CLIENTS)?;
    eprintln!("connect, ping, close: {each:?} each");
    ensure!(each < slow(Duration::from_millis(200)), "{each:?} each");
    scene.finish([client].into_iter().chain(netns_of(servers)))
}

/// As many endpoints as clients: each client has one of its own.
#[test]
fn bench_connection_one_to_one() -> Result<()> {
    let scene = Scene::start("onetoone", Mode::Whole)?;
    let names: [String; CLIENTS] = std::array::from_fn(|number| format!("nse-{number:02}"));
    let servers = scene.serve(service(SERVICE, "IP"), names.each_ref().map(|name| &**name))?;
    let clients = clients()?;
    let wires = all_at_once(&scene.api, &clients, |number| format!("nsc-{number}"))?;
    let reached: BTreeSet<&str> = wires
        .iter()
        .map(|wire| &*wire.connection.network_service_endpoint_name)
        .collect();
    ensure!(reached.len() == CLIENTS, "{reached:?}");
    for (client, wire) in clients.iter().zip(&wires) {
        let name = &wire.connection.network_service_endpoint_name;
        let server = servers
            .iter()
            .find(|server| server.name() == name)
            .context("an endpoint")?;
        ping_both_ways(client, &server.netns, wire)?;
    }
    scene.finish(clients.into_iter().chain(netns_of(servers)))
}
