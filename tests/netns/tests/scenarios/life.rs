//! How endpoints and connections begin and end: order of deployment, leases, wrong and dead ones.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, eventually, slow};
use tieline_tests_netns::{
    Mode, Scene, Watched, Wire, endpoint, netns_url, request, service, with, with_lifetime,
};
use tonic::Code;

use super::{SERVICE, ping_both_ways};

const NOBODY: u32 = 65534;

/// A client that asks for a service that nobody declared hears so, and disturbs nobody.
#[test]
fn wrong_nsc() -> Result<()> {
    let scene = Scene::start("wrong", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let (client, wrong) = (NetNs::new("nsc")?, NetNs::new("wrong-nsc")?);
    let wire = scene.connect(&client, "nsc", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    let before = scene.node.kernel()?;
    let begin = Instant::now();
    let refused = scene
        .api
        .request(request("wrong", "gold-netwrok", &netns_url(&wrong)));
    let refused = refused
        .err()
        .context("a service that does not exist was granted")?;
    ensure!(
        refused.code() == Code::NotFound && refused.message().contains("gold-netwrok"),
        "{refused:?}"
    );
    ensure!(
        begin.elapsed() < slow(Duration::from_secs(1)),
        "it took {:?}",
        begin.elapsed()
    );
    ensure!(
        scene.node.kernel()? == before,
        "the refused Request left something"
    );
    ensure!(
        wrong.net(tieline_lab::Net::links)?.len() == 1,
        "the refused Request left an interface"
    );
    // The same client asks rightly.
    let right = scene.connect(&wrong, "wrong", SERVICE)?;
    ping_both_ways(&wrong, &server.netns, &right)?;
    watched.finish()?.assert_nothing()?;
    scene.finish([client, wrong, server.netns])
}

/// An endpoint dies without a word: its registration ends with its lease, and nobody is sent to it any more.
#[test]
fn delete_dirty_nse() -> Result<()> {
    let scene = Scene::start("dirty", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let lease = slow(Duration::from_secs(1));
    let dirty = scene.add_server("dirty", |url| {
        let mut registration = endpoint("dirty", SERVICE, url);
        registration.expiration_time = Some((std::time::SystemTime::now() + lease).into());
        registration
    })?;
    ensure!(scene.api.endpoints()? == ["dirty", "nse"]);
    let begin = Instant::now();
    drop(dirty);
    eventually(lease * 3, "the registration to end", || {
        Ok(scene.api.endpoints()? == ["nse"])
    })?;
    ensure!(
        begin.elapsed() + Duration::from_millis(100) >= lease,
        "after {:?}",
        begin.elapsed()
    );
    let client = NetNs::new("nsc")?;
    for id in ["one", "two", "three"] {
        let wire = scene.connect(&client, id, SERVICE)?;
        ensure!(wire.connection.network_service_endpoint_name == "nse", "{wire:?}");
        ping_both_ways(&client, &server.netns, &wire)?;
    }
    scene.finish([client, server.netns])
}

/// A connection that is not refreshed ends with its lease, at both ends; its neighbour does not notice.
#[test]
fn timeout() -> Result<()> {
    let scene = Scene::start("timeout", Mode::Apart)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let steady = scene.connect(&client, "steady", SERVICE)?;
    let watched = Watched::start(&client, &steady)?;
    let lease = slow(Duration::from_secs(1));
    let begin = Instant::now();
    let asked = with_lifetime(request("short", SERVICE, &netns_url(&client)), lease);
    let short = Wire::request(&scene.api, asked)?;
    eventually(lease * 3, "the connection to end", || {
        Ok(scene.api.connections()?.len() == 1)
    })?;
    let took = begin.elapsed();
    ensure!(
        took + Duration::from_millis(100) >= lease,
        "it ended after {took:?} of {lease:?}"
    );
    let ends = [
        (&client, &short.client_interface),
        (&server.netns, &short.endpoint_interface),
    ];
    for (netns, interface) in ends {
        eventually(Duration::from_secs(2), "its interfaces to go", || {
            Ok(netns.net(|net| net.find(interface))?.is_none())
        })?;
    }
    scene.node.kernel()?.assert_whole(1)?;
    watched.finish()?.assert_nothing()?;
    scene.finish([client, server.netns])
}

/// A registration that is refreshed stays, one that is not ends; one that ended may begin again under the same name.
#[test]
fn expire() -> Result<()> {
    let scene = Scene::start("expire", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let lease = slow(Duration::from_secs(1));
    let short = |name: &str| {
        let mut registration = endpoint(name, SERVICE, &netns_url(&server.netns));
        registration.expiration_time = Some((std::time::SystemTime::now() + lease).into());
        registration
    };
    scene.api.register(short("kept"))?;
    scene.api.register(short("left"))?;
    for _ in 0..8 {
        thread::sleep(lease / 4);
        scene.api.register(short("kept"))?;
    }
    ensure!(
        scene.api.endpoints()? == ["kept", "nse"],
        "{:?}",
        scene.api.endpoints()?
    );
    scene.api.register(short("left"))?;
    ensure!(scene.api.endpoints()? == ["kept", "left", "nse"]);
    scene.finish([server.netns])
}

/// Whatever comes first, node, service, endpoint or client: the client that goes on asking is connected as soon as all
/// of them are there.
#[test]
fn deployment_order() -> Result<()> {
    let scene = Scene::start("order", Mode::Apart)?;
    let client = NetNs::new("nsc")?;
    let asks = || scene.api.request(request("nsc", SERVICE, &netns_url(&client)));
    ensure!(asks().is_err(), "connected to nothing");
    scene.api.apply(service(SERVICE, "IP"))?;
    ensure!(asks().is_err(), "connected to a service without endpoints");
    let server = scene.add_server("nse", |url| endpoint("nse", SERVICE, url))?;
    let wire = scene.connect(&client, "nsc", SERVICE)?;
    ping_both_ways(&client, &server.netns, &wire)?;
    scene.finish([client, server.netns])
}

/// An endpoint is created while a client asks: the client is connected without delay.
#[test]
fn create_endpoint_during_request() -> Result<()> {
    let scene = Scene::start("during", Mode::Apart)?;
    scene.api.apply(service(SERVICE, "IP"))?;
    let client = NetNs::new("nsc")?;
    let url = netns_url(&client);
    thread::scope(|scope| {
        let api = scene.api.clone();
        let asking = scope.spawn(move || {
            loop {
                let answer = api.request(request("nsc", SERVICE, &url));
                if !answer
                    .as_ref()
                    .is_err_and(|status| status.code() == Code::FailedPrecondition)
                {
                    return (answer, Instant::now());
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        thread::sleep(Duration::from_millis(200));
        ensure!(!asking.is_finished(), "it was answered without an endpoint");
        let created = Instant::now();
        let server = scene.add_server("nse", |url| endpoint("nse", SERVICE, url))?;
        let (answer, at) = asking.join().ok().context("the client panicked")?;
        answer?;
        let took = at.saturating_duration_since(created);
        ensure!(took < slow(Duration::from_millis(500)), "it took {took:?}");
        Ok(server.netns)
    })
    .and_then(|netns| scene.finish([client, netns]))
}

/// An endpoint that cannot take more is passed over for one that can; when nobody can, the refusal says who has them.
#[test]
fn busy_endpoints() -> Result<()> {
    let scene = Scene::start("busy", Mode::Whole)?;
    scene.api.apply(service(SERVICE, "ETHERNET"))?;
    let machine = NetNs::new("machine")?;
    // An existing interface ends one wire and no more.
    for number in 0..3 {
        let tap = format!("tap{number}");
        scene.node.netns().net(|net| {
            net.add_veth(&tap, &format!("inside{number}"), Some(&machine))?;
            net.set_up(&tap)
        })?;
        scene
            .api
            .register(endpoint(&tap, SERVICE, &format!("interface:///{tap}")))?;
    }
    let client = NetNs::new("nsc")?;
    let mut reached = Vec::new();
    for number in 0..3 {
        let wire = scene.connect(&client, &format!("nsc-{number}"), SERVICE)?;
        reached.push(wire.connection.network_service_endpoint_name);
    }
    reached.sort();
    ensure!(reached == ["tap0", "tap1", "tap2"], "{reached:?}");
    let refused = scene
        .api
        .request(request("one-more", SERVICE, &netns_url(&client)));
    let refused = refused.err().context("three interfaces end four wires")?;
    for word in ["tap0", "tap1", "tap2", "nsc-0"] {
        ensure!(
            refused.message().contains(word),
            "it does not say {word}: {refused:?}"
        );
    }
    // One leaves: its place is taken.
    let first = scene
        .api
        .connections()?
        .swap_remove(0)
        .connection
        .unwrap_or_default();
    let free = first.network_service_endpoint_name.clone();
    scene.api.close(first)?;
    let next = scene.connect(&client, "one-more", SERVICE)?;
    ensure!(next.connection.network_service_endpoint_name == free, "{next:?}");
    for number in 0..3 {
        scene
            .node
            .netns()
            .net(|net| net.delete(&format!("tap{number}")))?;
    }
    scene.finish([client, machine])
}

/// A name in the registry belongs to who registered it: another workload can neither take it over nor remove it.
#[test]
fn failed_registry_authorization() -> Result<()> {
    use std::os::unix::process::CommandExt as _;

    let scene = Scene::start("authorize", Mode::Whole)?;
    scene.api.apply(service(SERVICE, "IP"))?;
    let program = scene.node.program_for_others()?;
    let (owner, other) = (NetNs::new("owner")?, NetNs::new("other")?);
    let register = |netns: &NetNs| {
        let arguments = [
            "register",
            "--service",
            SERVICE,
            "--name",
            "nse",
            "--lifetime",
            "1h",
        ];
        let ours = scene.node.command(&arguments)?;
        let mut command = Command::new(&program);
        command
            .args(ours.get_args())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/");
        netns.run(move || Ok(command.output()?))
    };
    let granted = register(&owner)?;
    ensure!(
        granted.status.success(),
        "{}",
        String::from_utf8_lossy(&granted.stderr)
    );
    let refused = register(&other)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("nse"), "{said}");
    let again = register(&owner)?;
    ensure!(
        again.status.success(),
        "its owner cannot refresh it: {}",
        String::from_utf8_lossy(&again.stderr)
    );
    ensure!(scene.api.endpoints()? == ["nse"]);
    scene.finish([owner, other])
}

/// The node is restarted while a client refreshes: the refresh is answered before or after, the wire does not notice.
#[test]
fn restart_during_refresh() -> Result<()> {
    let mut scene = Scene::start("refresh", Mode::Apart)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let lease = slow(Duration::from_secs(2));
    let refresh = || with_lifetime(request("nsc", SERVICE, &netns_url(&client)), lease);
    let wire = Wire::request(&scene.api, refresh())?;
    let watched = Watched::start(&client, &wire)?;
    let (api, until) = (scene.api.clone(), Instant::now() + lease * 3 / 2);
    let (done, failed) = thread::scope(|scope| {
        let refreshing = scope.spawn(|| {
            let (mut done, mut failed) = (0u32, 0u32);
            while Instant::now() < until {
                match api.request(refresh()) {
                    Ok(_) => done += 1,
                    Err(_) => failed += 1,
                }
                thread::sleep(Duration::from_millis(20));
            }
            (done, failed)
        });
        while !refreshing.is_finished() {
            scene.node.kill_agent()?;
            scene.node.start_agent()?;
            scene.node.kill_control()?;
            scene.node.start_control()?;
            scene.node.wait_until_ready()?;
            // Time for a refresh to be answered.
            thread::sleep(slow(Duration::from_millis(150)));
        }
        refreshing.join().ok().context("the client panicked")
    })?;
    ensure!(done >= 3, "{done} refreshes were answered, {failed} were not");
    // The lease was prolonged beyond its first end.
    watched.wait_for_answers("answers after the first lease")?;
    watched.finish()?.assert_nothing()?;
    let after = Wire::request(&scene.api, refresh())?;
    ensure!(
        (after.client, after.endpoint) == (wire.client, wire.endpoint),
        "the addresses changed"
    );
    scene.finish([client, server.netns])
}

/// A Request for an endpoint of another service by name is refused, and says why.
#[test]
fn no_match_service_found() -> Result<()> {
    let scene = Scene::start("nomatch", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    scene.api.apply(service("silver-network", "IP"))?;
    let client = NetNs::new("nsc")?;
    let asked = with(
        request("nsc", "silver-network", &netns_url(&client)),
        |connection| {
            connection.network_service_endpoint_name = "nse".to_owned();
        },
    );
    let refused = scene
        .api
        .request(asked)
        .err()
        .context("an endpoint of another service was granted")?;
    ensure!(refused.message().contains("silver-network"), "{refused:?}");
    scene.finish([client, server.netns])
}
