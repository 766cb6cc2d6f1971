//! Endpoints die under traffic: how long it takes until the wire carries again, who hears of it, and what stays.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, Responder, ResponderId, eventually, slow};
use tieline_proto::{
    connection::State, registry::NetworkServiceEndpoint, tieline::admin::v1::ConnectionStatus,
};
use tieline_tests_netns::{Mode, PORT, Scene, Server, Watched, Wire, endpoint, service};

const SERVICE: &str = "gold-network";
/// Deaths that a median is taken of.
const DEATHS: usize = 20;
/// From the death to the first packet at the new endpoint, or to the word that there is none.
const DETECTED: Duration = Duration::from_millis(150);
/// The same where one death is looked at alone.
const ONCE: Duration = Duration::from_millis(300);
/// From the registration of an endpoint to the first packet at it, for a wire that had none.
const HEALED: Duration = Duration::from_millis(50);
/// The kernel answers no echo request then.
const ECHO_IGNORED: &str = "ipv4/icmp_echo_ignore_all";
const LIMIT: Duration = Duration::from_secs(5);

/// A service and its endpoints, of which some die.
struct Stage {
    scene: Scene,
    servers: Vec<Server>,
}

impl Stage {
    fn new<const N: usize>(names: [&str; N]) -> Result<Self> {
        let scene = Scene::start("heal", Mode::Apart)?;
        let servers = scene.serve(service(SERVICE, "IP"), names)?.into();
        Ok(Self { scene, servers })
    }

    /// What control says of the only wire.
    fn status(&self) -> Result<ConnectionStatus> {
        let first = self.scene.api.connections()?.into_iter().next();
        first.context("the wire is gone")
    }

    /// The server that the wire leads to, and what it is switched to when that one fails.
    fn serving(&self) -> Result<(usize, Vec<String>)> {
        let status = self.status()?;
        let branch = status.branches.first().context("the wire is parked")?;
        let name = branch.path.last().context("a path has an end")?;
        let found = self.servers.iter().position(|server| server.name() == name);
        Ok((
            found.with_context(|| format!("it leads to {name}"))?,
            status.backup,
        ))
    }

    /// A server dies as a machine does that loses power: nothing answers any more, and its namespace goes.
    fn kill(&mut self, number: usize) -> Instant {
        let Server { netns, responder, .. } = self.servers.swap_remove(number);
        let death = responder.die();
        drop(netns);
        death
    }

    /// One more; the moment at which it registers.
    fn add(&mut self, name: &str) -> Result<Instant> {
        let mut at = Instant::now();
        let server = self.scene.add_server(name, |url| {
            at = Instant::now();
            endpoint(name, SERVICE, url)
        })?;
        self.servers.push(server);
        Ok(at)
    }

    /// A server stands still: neither its kernel nor its programs answer, and nothing else tells of it. Since when.
    fn stand_still(&mut self, number: usize) -> Result<(Still, Instant)> {
        let Server {
            netns,
            registered,
            responder,
        } = self.servers.swap_remove(number);
        netns.sysctl(ECHO_IGNORED, "1")?;
        Ok((Still { netns, registered }, responder.die()))
    }

    /// It goes on, and says so.
    fn go_on(&self, still: &Still) -> Result<Responder> {
        still.netns.sysctl(ECHO_IGNORED, "0")?;
        let responder = Responder::start(&still.netns, PORT)?;
        self.scene.api.register(still.registered.clone())?;
        Ok(responder)
    }

    /// A server is killed while `wire` is under traffic, which `heir` answers from there on.
    fn die_and_be_followed(
        &mut self,
        (client, wire): (&NetNs, &Wire),
        number: usize,
        heir: ResponderId,
    ) -> Result<()> {
        let watched = Watched::start(client, wire)?;
        let death = self.kill(number);
        watched.wait_for_answers_by(heir)?;
        let took = watched.finish()?.first_answer_since(death, heir)?;
        ensure!(took <= slow(ONCE), "it took {took:?}");
        Ok(())
    }

    fn finish(self, client: NetNs) -> Result<()> {
        let servers = self.servers.into_iter().map(|server| server.netns);
        self.scene.finish([client].into_iter().chain(servers))
    }
}

/// A server that stands still.
struct Still {
    netns: NetNs,
    registered: NetworkServiceEndpoint,
}

/// Fails unless the median is at most that long.
fn assert_median(what: &str, mut times: Vec<Duration>, most: Duration) -> Result<()> {
    times.sort();
    let median = times[times.len() / 2];
    let (least, longest) = (times[0], times[times.len() - 1]);
    eprintln!(
        "{what}: {median:?} median of {}, {least:?} to {longest:?}",
        times.len()
    );
    ensure!(
        median <= slow(most),
        "{what}: {median:?}, at most {most:?}: {times:?}"
    );
    Ok(())
}

#[test]
fn with_a_backup_packets_reach_it_within_150_ms_of_the_death() -> Result<()> {
    let mut stage = Stage::new(["one", "two"])?;
    let client = NetNs::new("client")?;
    let wire = stage.scene.connect(&client, "wire", SERVICE)?;
    let mut times = Vec::new();
    for _ in 0..DEATHS {
        eventually(LIMIT, "a backup to be known", || {
            Ok(!stage.serving()?.1.is_empty())
        })?;
        let (number, backup) = stage.serving()?;
        let name = stage.servers[number].name().to_owned();
        let heir = &stage.servers[1 - number];
        ensure!(backup == [heir.name()], "the backup of {name} is {backup:?}");
        let heir = heir.responder.id();
        let watched = Watched::start(&client, &wire)?;
        let death = stage.kill(number);
        watched.wait_for_answers_by(heir)?;
        let noticed = watched.finish()?;
        noticed.assert_outage_of_at_most(DETECTED * 4)?;
        times.push(noticed.first_answer_since(death, heir)?);
        stage.add(&name)?;
    }
    assert_median("death to first packet at the backup", times, DETECTED)?;
    stage.finish(client)
}

#[test]
fn without_a_backup_monitor_says_down_within_150_ms_and_an_endpoint_that_registers_heals_within_50_ms()
-> Result<()> {
    let mut stage = Stage::new(["one"])?;
    let client = NetNs::new("client")?;
    let wire = stage.scene.connect(&client, "wire", SERVICE)?;
    let monitor = stage.scene.api.monitor()?;
    monitor.wait_until("the wire", |all| all.contains_key("wire"))?;
    let (mut down, mut healed) = (Vec::new(), Vec::new());
    for _ in 0..DEATHS {
        let watched = Watched::start(&client, &wire)?;
        let death = stage.kill(0);
        let is_down = |state| state == State::Down;
        eventually(LIMIT, "the word that it is down", || {
            Ok(monitor
                .heard_since(death, "wire", |one| is_down(one.state()))
                .is_some())
        })?;
        let heard = monitor.heard_since(death, "wire", |one| is_down(one.state()));
        down.push(heard.context("heard")? - death);
        let reason = stage.status()?.reason;
        ensure!(
            reason.contains("one"),
            "the reason does not say who died: {reason:?}"
        );
        let registered = stage.add("one")?;
        let heir = stage.servers[0].responder.id();
        watched.wait_for_answers_by(heir)?;
        monitor.wait_until("the word that it is up", |all| {
            all.get("wire").is_some_and(|one| one.state() == State::Up)
        })?;
        healed.push(watched.finish()?.first_answer_since(registered, heir)?);
    }
    assert_median("death to DOWN", down, DETECTED)?;
    assert_median("registration to first packet", healed, HEALED)?;
    stage.finish(client)
}

/// Control is dead when the endpoint dies: the node switches to the backup by itself, and control learns of it later.
#[test]
fn the_switch_to_a_backup_needs_no_control() -> Result<()> {
    let mut stage = Stage::new(["one", "two"])?;
    let client = NetNs::new("client")?;
    let wire = stage.scene.connect(&client, "wire", SERVICE)?;
    eventually(LIMIT, "a backup to be known", || {
        Ok(!stage.serving()?.1.is_empty())
    })?;
    let (number, _) = stage.serving()?;
    let heir = &stage.servers[1 - number];
    let (heir, name) = (heir.responder.id(), heir.name().to_owned());
    stage.scene.node.kill_control()?;
    let watched = Watched::start(&client, &wire)?;
    let death = stage.kill(number);
    watched.wait_for_answers_by(heir)?;
    stage.scene.node.start_control()?;
    stage.scene.node.wait_until_ready()?;
    eventually(LIMIT, "control to know", || {
        let status = stage.status()?;
        let branch = status.branches.first();
        Ok(branch.is_some_and(|branch| branch.path.last() == Some(&name)))
    })?;
    watched.wait_for_answers_by(heir)?;
    let noticed = watched.finish()?;
    noticed.assert_outage_of_at_most(DETECTED * 4)?;
    let took = noticed.first_answer_since(death, heir)?;
    ensure!(took <= slow(DETECTED * 2), "it took {took:?}");
    stage.finish(client)
}

/// An endpoint that stands still is left; when it goes on, it is what the wire is led to when the other one dies.
#[test]
fn an_endpoint_that_stood_still_is_a_backup_again_when_it_goes_on() -> Result<()> {
    let mut stage = Stage::new(["one", "two"])?;
    let client = NetNs::new("client")?;
    let wire = stage.scene.connect(&client, "wire", SERVICE)?;
    eventually(LIMIT, "a backup to be known", || {
        Ok(!stage.serving()?.1.is_empty())
    })?;
    let (number, _) = stage.serving()?;
    let heir = stage.servers[1 - number].responder.id();
    let watched = Watched::start(&client, &wire)?;
    let (still, death) = stage.stand_still(number)?;
    watched.wait_for_answers_by(heir)?;
    let took = watched.finish()?.first_answer_since(death, heir)?;
    ensure!(took <= slow(ONCE), "it took {took:?}");

    let responder = stage.go_on(&still)?;
    // It answers ten times a second while it is dead, and lives again after three.
    std::thread::sleep(slow(Duration::from_millis(700)));
    stage.die_and_be_followed((&client, &wire), 0, responder.id())?;
    drop(responder);
    stage.scene.finish([client, still.netns])
}

/// The only endpoint stands still, another one comes and goes again before the first is known to live: the wire is led to the
/// first all the same, for nobody else is left.
#[test]
fn when_the_other_endpoint_is_gone_the_one_that_stood_still_is_reached_as_soon_as_it_answers() -> Result<()> {
    let mut stage = Stage::new(["one"])?;
    let client = NetNs::new("client")?;
    let wire = stage.scene.connect(&client, "wire", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    let (still, _) = stage.stand_still(0)?;
    eventually(LIMIT, "the word that it is down", || {
        let state = stage.status()?.connection.unwrap_or_default().state();
        Ok(state == State::Down)
    })?;
    stage.add("two")?;
    watched.wait_for_answers_by(stage.servers[0].responder.id())?;
    drop(watched);

    let responder = stage.go_on(&still)?;
    stage.die_and_be_followed((&client, &wire), 0, responder.id())?;
    eventually(LIMIT, "the word that it is up", || {
        let state = stage.status()?.connection.unwrap_or_default().state();
        Ok(state == State::Up)
    })?;
    drop(responder);
    stage.scene.finish([client, still.netns])
}
