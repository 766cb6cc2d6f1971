//! The gold-network story, which is the wiring document's, on live traffic: a gateway alone, firewalls in front of it by
//! two wirings, more and fewer of them, the wirings gone, the ordered list in their place. A thousand numbered datagrams
//! a second in each family and a TCP transfer go through every planned step: none is lost, order is kept, the user's
//! interface and the gateway's stay what they are, and after every step the counters at each hop show the path.

#[path = "gold/death.rs"]
mod death;
#[path = "gold/split.rs"]
mod split;

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, TcpPlan, TcpTransfer, slow};
use tieline_tests_netns::{
    Attested, Face, Mode, Router, Scene, Server, Watched, Wire, assert_path, endpoint,
};

const SERVICE: &str = "gold-network";
const SERVICE_ALONE: &str = include_str!("../../../docs/examples/gold-network/service.yaml");
const SERVICE_ORDERED: &str = include_str!("../../../docs/examples/gold-network/ordered.yaml");
const WIRINGS: &str = include_str!("../../../docs/examples/gold-network/wirings.yaml");

/// Everybody in the story but the user, whom the traffic is of.
struct Stage {
    scene: Scene,
    attested: Attested,
    gateway: Server,
    firewalls: Vec<Router>,
}

impl Stage {
    /// The service with its gateway alone.
    fn new() -> Result<Self> {
        let mut attested = Attested::new()?;
        let path = attested.path();
        let path = path.to_str().context("a path in UTF-8")?;
        let scene = Scene::start_with("gold", Mode::Whole, &["--workloads", path])?;
        scene.node.tieline(&["apply", "-f", "-"], SERVICE_ALONE)?;
        let netns = NetNs::new("vpngateway")?;
        attested.say(&netns, "app: vpngateway, vpngateway: 'true'")?;
        let gateway = scene.serve_in(netns, |url| endpoint("vpngateway", SERVICE, url))?;
        Ok(Self {
            scene,
            attested,
            gateway,
            firewalls: Vec::new(),
        })
    }

    fn apply(&self, text: &str) -> Result<()> {
        self.scene.node.tieline(&["apply", "-f", "-"], text).map(drop)
    }

    /// A firewall more. It only registers.
    fn add_firewall(&mut self, name: &str) -> Result<()> {
        let netns = NetNs::new(name)?;
        self.attested.say(&netns, "app: firewall, firewall: 'true'")?;
        let firewall = self.scene.route_in(netns, |url| endpoint(name, SERVICE, url))?;
        self.firewalls.push(firewall);
        Ok(())
    }

    /// A new wire for this namespace leads along this path, is whole, and goes again.
    fn new_wire_leads(&self, netns: &NetNs, path: &[&str]) -> Result<()> {
        let wire = self.scene.connect(netns, "passing", SERVICE)?;
        let watched = Watched::start(netns, &wire)?;
        assert_path(&self.scene.api, &wire, &watched, &[], path)?;
        watched.finish()?.assert_nothing()?;
        Ok(self.scene.api.close(wire.connection)?)
    }
}

/// The user's wire under traffic, and what both of its ends look like.
struct Steady<'a> {
    wire: &'a Wire,
    watched: Watched<'a>,
    transfer: TcpTransfer,
    gateway: Face,
}

impl<'a> Steady<'a> {
    fn start(stage: &Stage, user: &'a NetNs, wire: &'a Wire) -> Result<Self> {
        let plan = TcpPlan {
            bytes: None,
            rate: Some(8_000_000),
        };
        let to = SocketAddr::new(wire.endpoint[0], 7001);
        Ok(Self {
            watched: Watched::start(user, wire)?,
            transfer: TcpTransfer::start(user, &stage.gateway.netns, to, plan)?,
            gateway: Face::of(&stage.gateway.netns, &wire.endpoint_interface)?,
            wire,
        })
    }

    /// The packets take this path, and neither end of the wire has changed.
    fn leads(&self, stage: &Stage, path: &[&str]) -> Result<()> {
        let routers: Vec<&Router> = stage.firewalls.iter().collect();
        assert_path(&stage.scene.api, self.wire, &self.watched, &routers, path)?;
        self.watched.assert_same_face()?;
        let gateway = Face::of(&stage.gateway.netns, &self.wire.endpoint_interface)?;
        ensure!(
            gateway == self.gateway,
            "the gateway's interface is {gateway:?}, was {:?}",
            self.gateway
        );
        Ok(())
    }

    fn finish_and_assert_perfect(self) -> Result<()> {
        self.watched.finish()?.assert_nothing()?;
        eprintln!("{:?}", self.transfer.finish()?);
        Ok(())
    }
}

#[test]
fn users_reach_the_gateway_as_wired_and_lose_nothing_whatever_is_changed() -> Result<()> {
    let mut stage = Stage::new()?;
    let (user, other) = (NetNs::new("user")?, NetNs::new("other")?);
    let wire = stage.scene.connect(&user, "user", SERVICE)?;
    let steady = Steady::start(&stage, &user, &wire)?;
    steady.leads(&stage, &["vpngateway"]).context("alone")?;

    stage.add_firewall("fw-1")?;
    thread::sleep(slow(Duration::from_millis(200)));
    steady
        .leads(&stage, &["vpngateway"])
        .context("a firewall registers")?;
    stage
        .new_wire_leads(&other, &["vpngateway"])
        .context("a firewall registers")?;

    stage.apply(WIRINGS)?;
    steady.leads(&stage, &["fw-1", "vpngateway"]).context("wired")?;
    stage
        .new_wire_leads(&other, &["fw-1", "vpngateway"])
        .context("wired")?;
    stage
        .new_wire_leads(&stage.firewalls[0].netns, &["vpngateway"])
        .context("a firewall as client")?;

    scale_up_and_drain(&mut stage, &steady, &other)?;

    for name in ["gold-network-wiring-1", "gold-network-wiring-2"] {
        stage.scene.api.delete("NetworkServiceWiring", name)?;
        steady.leads(&stage, &["vpngateway"]).context(name)?;
    }
    stage.apply(SERVICE_ORDERED)?;
    steady
        .leads(&stage, &["fw-1", "vpngateway"])
        .context("in order")?;
    stage.apply(SERVICE_ALONE)?;
    steady.leads(&stage, &["vpngateway"]).context("alone again")?;

    steady.finish_and_assert_perfect()?;
    let firewalls = stage.firewalls.into_iter().map(|firewall| firewall.netns);
    stage
        .scene
        .finish([user, other, stage.gateway.netns].into_iter().chain(firewalls))
}

/// A second firewall comes: nobody is moved to it, and no firewall leads to another one. The first one is drained, the
/// second unregisters.
fn scale_up_and_drain(stage: &mut Stage, steady: &Steady<'_>, other: &NetNs) -> Result<()> {
    stage.add_firewall("fw-2")?;
    steady
        .leads(stage, &["fw-1", "vpngateway"])
        .context("a second firewall")?;
    for firewall in &stage.firewalls {
        for _ in 0..2 {
            stage
                .new_wire_leads(&firewall.netns, &["vpngateway"])
                .context("firewalls as clients")?;
        }
    }
    stage.scene.api.drain("fw-1", false)?;
    steady
        .leads(stage, &["fw-2", "vpngateway"])
        .context("the first is drained")?;
    stage
        .new_wire_leads(other, &["fw-2", "vpngateway"])
        .context("the first is drained")?;
    stage.scene.api.drain("fw-1", true)?;
    steady
        .leads(stage, &["fw-2", "vpngateway"])
        .context("the first is back")?;
    stage
        .scene
        .api
        .unregister(stage.firewalls[1].registered.clone())?;
    steady
        .leads(stage, &["fw-1", "vpngateway"])
        .context("the second is gone")
}
