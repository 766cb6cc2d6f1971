//! Endpoints die, alone and together with others: the client keeps its interface and addresses, hears of it, and is
//! served again as soon as somebody can. (How soon is measured in `heal.rs`.)

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, PingPlan, eventually, ping, slow};
use tieline_proto::connection::State;
use tieline_tests_netns::{Face, Mode, Monitor, Scene, Server, Watched, Wire, endpoint, service};

use super::{SERVICE, ping_both_ways};

const LIMIT: Duration = Duration::from_secs(5);

/// A client whose only endpoint is going to die.
struct Stage {
    scene: Scene,
    client: NetNs,
    wire: Wire,
    monitor: Monitor,
    face: Face,
}

impl Stage {
    fn new(label: &str) -> Result<(Self, Server)> {
        let scene = Scene::start(label, Mode::Apart)?;
        let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
        let client = NetNs::new("nsc")?;
        let wire = scene.connect(&client, "nsc", SERVICE)?;
        ping_both_ways(&client, &server.netns, &wire)?;
        let stage = Self {
            monitor: scene.api.monitor_at_control()?,
            face: Face::of(&client, &wire.client_interface)?,
            scene,
            client,
            wire,
        };
        Ok((stage, server))
    }

    /// Nothing answers, the client has been told why, and has what it had.
    fn assert_down(&self) -> Result<()> {
        let once = PingPlan {
            count: 1,
            timeout: Duration::from_millis(100),
            ..PingPlan::default()
        };
        for far in &self.wire.endpoint {
            // A namespace goes some time after its last process.
            eventually(LIMIT, "nobody to answer", || {
                Ok(ping(&self.client, *far, once)?.received == 0)
            })?;
        }
        ensure!(
            Face::of(&self.client, &self.wire.client_interface)? == self.face,
            "the client's interface changed"
        );
        Ok(())
    }

    fn wait_for(&self, state: State) -> Result<()> {
        self.monitor.wait_until("the state", |all| {
            all.get("nsc").is_some_and(|one| one.state() == state)
        })
    }

    /// An endpoint comes, and everything is as before.
    fn heals(self, name: &str) -> Result<()> {
        let server = self.scene.add_server(name, |url| endpoint(name, SERVICE, url))?;
        eventually(LIMIT, "the wire to carry again", || {
            let once = PingPlan {
                count: 1,
                timeout: Duration::from_millis(50),
                ..PingPlan::default()
            };
            Ok(ping(&self.client, self.wire.endpoint[0], once)?.received == 1)
        })?;
        ping_both_ways(&self.client, &server.netns, &self.wire)?;
        ensure!(Face::of(&self.client, &self.wire.client_interface)? == self.face);
        self.scene.node.kernel()?.assert_whole(1)?;
        self.scene.finish([self.client, server.netns])
    }
}

/// The endpoint restarts: it comes back under its name, in another namespace.
#[test]
fn selects_restarting_nse() -> Result<()> {
    let (stage, server) = Stage::new("nserestart")?;
    drop(server);
    stage.wait_for(State::Down)?;
    stage.heals("nse")
}

/// The client closes while there is nobody: nothing of the wire is left, and nothing comes back with the next endpoint.
#[test]
fn close_heal() -> Result<()> {
    let (stage, server) = Stage::new("closeheal")?;
    drop(server);
    stage.wait_for(State::Down)?;
    stage.assert_down()?;
    stage.scene.api.close(stage.wire.connection.clone())?;
    stage.monitor.wait_until("the close", BTreeMap::is_empty)?;
    let next = stage
        .scene
        .add_server("nse-new", |url| endpoint("nse-new", SERVICE, url))?;
    std::thread::sleep(slow(Duration::from_millis(300)));
    for netns in [&stage.client, &next.netns] {
        let links = netns.net(tieline_lab::Net::links)?;
        ensure!(links.len() == 1, "{links:?}");
    }
    stage.scene.finish([stage.client, next.netns])
}

/// An endpoint unregisters while it serves, in order: whoever it served is with another one before it goes, and loses
/// nothing.
#[test]
fn nse_unregisters() -> Result<()> {
    let scene = Scene::start("unregister", Mode::Apart)?;
    let [one, two] = scene.serve(service(SERVICE, "IP"), ["one", "two"])?;
    let client = NetNs::new("nsc")?;
    let wire = scene.connect(&client, "nsc", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    let first = wire.connection.network_service_endpoint_name.clone();
    let (leaves, stays) = if one.name() == first {
        (&one, &two)
    } else {
        (&two, &one)
    };
    scene.api.unregister(leaves.registered.clone())?;
    watched
        .wait_for_answers_by(stays.responder.id())
        .context("the other one")?;
    watched.finish()?.assert_nothing()?;
    scene.finish([client, one.netns, two.netns])
}

/// The last endpoint goes, and a supplier, which follows the events, starts one as soon as a client is without: the client
/// does nothing, and keeps its interface and its addresses.
#[test]
fn scale_from_zero() -> Result<()> {
    let (stage, server) = Stage::new("fromzero")?;
    stage.scene.api.unregister(server.registered.clone())?;
    stage.wait_for(State::Down)?;
    stage.assert_down()?;
    eventually(LIMIT, "the end of the one that went to go", || {
        Ok(server.netns.net(tieline_lab::Net::links)?.len() == 1)
    })?;
    drop(server);
    stage.heals("supplied")
}
