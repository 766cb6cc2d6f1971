//! Components die and come back under traffic. Where the reference pings after the fact, here nothing is lost at all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, slow};
use tieline_tests_netns::{Mode, Node, Scene, Server, Watched, Wire, service};

use super::{SERVICE, ping_both_ways};

/// How often the reference restarts a component.
const RESTARTS: usize = 15;

/// A client with a wire to an endpoint.
struct Stage {
    scene: Scene,
    client: NetNs,
    server: Server,
    wire: Wire,
}

impl Stage {
    fn new(label: &str) -> Result<Self> {
        Self::with(label, &[])
    }

    /// With more arguments for the agent.
    fn with(label: &str, arguments: &[&str]) -> Result<Self> {
        let scene = Scene::start_with(label, Mode::Apart, arguments)?;
        let [server] = scene.serve(service(SERVICE, "IP"), ["nse-kernel"])?;
        let client = NetNs::new("nsc-kernel")?;
        let wire = scene.connect(&client, "nsc-kernel", SERVICE)?;
        Ok(Self {
            scene,
            client,
            server,
            wire,
        })
    }

    /// The wire carries all along, and afterwards a new client connects as well.
    fn survives(mut self, what: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
        let watched = Watched::start(&self.client, &self.wire)?;
        what(&mut self.scene.node)?;
        watched.wait_for_answers("answers afterwards")?;
        watched.finish()?.assert_nothing()?;
        self.scene.node.kernel()?.assert_whole(1)?;
        let again = self.scene.connect(&self.client, "nsc-kernel", SERVICE)?;
        ensure!(
            (&again.client, &again.endpoint) == (&self.wire.client, &self.wire.endpoint),
            "a refresh changed the addresses: {again:?}, were {:?}",
            self.wire
        );
        let new = NetNs::new("nsc-new")?;
        let wire = self.scene.connect(&new, "nsc-new", SERVICE)?;
        ping_both_ways(&new, &self.server.netns, &wire)?;
        ping_both_ways(&self.client, &self.server.netns, &self.wire)?;
        self.scene.finish([self.client, new, self.server.netns])
    }
}

/// What forwards is the kernel; what sets it up is the agent, which dies and comes back.
#[test]
fn local_forwarder_death() -> Result<()> {
    Stage::new("forwarder")?.survives(|node| {
        node.kill_agent()?;
        node.start_agent()
    })
}

/// What the reference's manager of a node does is done by its agent and by control: both are stopped in order and
/// started again.
#[test]
fn local_nsmgr_restart() -> Result<()> {
    Stage::new("nsmgr")?.survives(|node| {
        node.stop()?;
        node.start_control()?;
        node.start_agent()
    })
}

#[test]
fn registry_restart() -> Result<()> {
    Stage::new("registry")?.survives(|node| {
        node.kill_control()?;
        node.start_control()?;
        node.wait_until_ready()
    })
}

/// Control is away for a while, as in the reference with 0 replicas; what was registered is still there.
#[test]
fn scaled_registry() -> Result<()> {
    let stage = Stage::new("scaled")?;
    let api = stage.scene.api.clone();
    let registered = stage.server.registered.clone();
    stage.survives(|node| {
        node.kill_control()?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(api.endpoints().is_err(), "somebody answers for control");
        node.start_control()?;
        node.wait_until_ready()?;
        ensure!(api.endpoints()? == ["nse-kernel"], "{:?}", api.endpoints()?);
        api.unregister(tieline_proto::registry::NetworkServiceEndpoint {
            name: "absent".to_owned(),
            ..registered.clone()
        })?;
        ensure!(api.endpoints()? == ["nse-kernel"]);
        Ok(())
    })
}

#[test]
fn local_nsmgr_local_forwarder_restart() -> Result<()> {
    Stage::new("both")?.survives(|node| {
        node.kill_agent()?;
        node.kill_control()?;
        node.start_control()?;
        node.start_agent()
    })
}

/// All of it is ended in order, as when its namespace is deleted, and put up again.
#[test]
fn local_nsm_system_restart() -> Result<()> {
    Stage::new("system")?.survives(|node| {
        node.kill_control()?;
        node.stop()?;
        std::thread::sleep(Duration::from_millis(300));
        // The agent is there first, and waits for control.
        node.launch_agent()?;
        std::thread::sleep(Duration::from_millis(200));
        node.start_control()?;
        node.wait_until_ready()
    })
}

/// Agent and control are killed again and again, first in turn, then both at once; where the reference allows each
/// time ten seconds without a route, nothing is lost.
#[test]
fn component_restart() -> Result<()> {
    Stage::new("component")?.survives(|node| {
        for number in 0..RESTARTS {
            let begin = Instant::now();
            if number % 2 == 0 {
                node.kill_agent()?;
                node.start_agent()?;
            } else {
                node.kill_control()?;
                node.start_control()?;
                node.wait_until_ready()?;
            }
            let took = begin.elapsed();
            ensure!(
                took < slow(Duration::from_secs(10)),
                "restart {number} took {took:?}"
            );
        }
        for _ in 0..RESTARTS {
            node.kill_agent()?;
            node.kill_control()?;
            node.start_control()?;
            node.start_agent().context("after both were killed at once")?;
        }
        Ok(())
    })
}

/// An end of the wire is set down from inside: the loss is noticed, and the interface is put right again.
#[test]
fn dataplane_interrupt() -> Result<()> {
    let stage = Stage::with("interrupt", &["--resync-interval", "1s"])?;
    let ends = [
        (&stage.client, &stage.wire.client_interface),
        (&stage.server.netns, &stage.wire.endpoint_interface),
    ];
    for (netns, interface) in ends {
        let watched = Watched::start(&stage.client, &stage.wire)?;
        netns.net(|net| net.set_down(interface))?;
        watched.wait_for_answers("answers after the interrupt")?;
        let noticed = watched.finish()?;
        noticed.assert_outage_of_at_most(Duration::from_secs(2))?;
        ensure!(
            noticed.longest_gap() > Duration::from_millis(5),
            "nobody noticed: {noticed:?}"
        );
    }
    stage.scene.node.kernel()?.assert_whole(1)?;
    ping_both_ways(&stage.client, &stage.server.netns, &stage.wire)?;
    stage.scene.finish([stage.client, stage.server.netns])
}
