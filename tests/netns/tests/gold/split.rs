//! A wiring of some traffic: of one wire, that traffic alone goes through the firewall.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{EchoStream, NetNs, TcpPlan, TcpTransfer, UdpPlan, eventually, slow};
use tieline_tests_netns::{Face, PORT, Router, Wire};

use super::{SERVICE, Stage};

/// Users' TCP connections to port 7002 go through a firewall. (The second wiring leads them on from there.)
const SPLIT: &str = "
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata: {name: inspect-some}
spec:
  target: [gold-network]
  qualifiers:
    source: {sourceService: '!gold-network'}
    traffic: [{protocol: tcp, ports: 7002}]
  action:
    route:
    - destination: {podSelector: firewall=true}
---
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata: {name: behind-firewalls}
spec:
  target: [gold-network]
  qualifiers:
    source: {podSelector: firewall=true}
  action:
    route:
    - destination: {podSelector: vpngateway=true}
";
/// Answers that a flow is looked at for.
const ENOUGH: u64 = 200;
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_millis(200);
/// What else a firewall may receive meanwhile, beside probes.
const STRAY: u64 = 8;
/// The node asks no more often than that whether who is behind the firewall lives; it and the answer are two frames.
const PROBES: Duration = Duration::from_millis(20);

fn received(router: &Router) -> Result<u64> {
    Ok(BTreeMap::values(&router.received()?).sum())
}

/// Sends new flows of datagrams, in both families; how many were answered, of which none was lost.
fn datagrams(user: &NetNs, wire: &Wire) -> Result<u64> {
    let mut answered = 0;
    for far in &wire.endpoint {
        let stream = EchoStream::start(user, SocketAddr::new(*far, PORT), UdpPlan::default())?;
        eventually(Duration::from_secs(10), "answers", || {
            Ok(stream.answered() >= ENOUGH)
        })?;
        let report = stream.finish()?;
        report.assert_perfect()?;
        answered += report.datagrams.received;
    }
    Ok(answered)
}

/// A new connection with some octets; how many segments at least that were.
fn octets(user: &NetNs, stage: &Stage, wire: &Wire) -> Result<u64> {
    let plan = TcpPlan {
        bytes: Some(1_000_000),
        rate: None,
    };
    let to = SocketAddr::new(wire.endpoint[1], 7002);
    let report = TcpTransfer::start(user, &stage.gateway.netns, to, plan)?.finish()?;
    ensure!(report.bytes == 1_000_000);
    // The largest segment that the kernel leaves uncut.
    Ok(report.bytes / 65_536)
}

#[test]
fn a_wiring_of_some_traffic_leads_that_traffic_alone_through_the_firewall() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.add_firewall("fw-1")?;
    let user = NetNs::new("user")?;
    let wire = stage.scene.connect(&user, "user", SERVICE)?;
    let faces = || {
        Ok::<_, anyhow::Error>([
            Face::of(&user, &wire.client_interface)?,
            Face::of(&stage.gateway.netns, &wire.endpoint_interface)?,
        ])
    };
    let before = faces()?;
    let plan = TcpPlan {
        bytes: None,
        rate: Some(8_000_000),
    };
    let to = SocketAddr::new(wire.endpoint[0], 7001);
    let steady = TcpTransfer::start(&user, &stage.gateway.netns, to, plan)?;
    let firewall = &stage.firewalls[0];
    datagrams(&user, &wire)?;
    ensure!(received(firewall)? == 0, "a firewall that nobody wired receives");

    stage.apply(SPLIT)?;
    let branches = |count: usize| {
        eventually(Duration::from_secs(5), "the branches", || {
            let wires = stage.scene.api.wires()?;
            let wire = wires.first().context("the wire")?;
            Ok(wire.branches.len() == count)
        })
    };
    branches(2)?;
    let mark = received(firewall)?;
    let segments = octets(&user, &stage, &wire)?;
    let since = received(firewall)? - mark;
    ensure!(
        since >= segments,
        "{since} frames of TCP at the firewall, of at least {segments}"
    );
    let (mark, began) = (received(firewall)?, Instant::now());
    let answered = datagrams(&user, &wire)?;
    let since = received(firewall)? - mark;
    let probes = u64::try_from(began.elapsed().as_millis() / PROBES.as_millis())? + 1;
    let other = since.saturating_sub(2 * probes);
    ensure!(
        other <= STRAY && answered > STRAY,
        "{since} frames at the firewall in the time of {probes} probes, {answered} answered"
    );
    ensure!(
        faces()? == before,
        "an end changed: {:?}, was {before:?}",
        faces()?
    );

    for name in ["inspect-some", "behind-firewalls"] {
        stage.scene.api.delete("NetworkServiceWiring", name)?;
    }
    branches(1)?;
    datagrams(&user, &wire)?;
    std::thread::sleep(slow(Duration::from_millis(400)));
    let links = firewall.netns.net(tieline_lab::Net::links)?;
    ensure!(links.len() == 1, "left at the firewall: {links:?}");
    let report = steady.finish()?;
    // The kernel sends a segment again when it only thinks that it was lost; a lost one takes a round of 200 ms at least.
    ensure!(
        report.longest_stall < slow(STALL),
        "the transfer stood still: {report:?}"
    );
    let firewalls = stage.firewalls.into_iter().map(|firewall| firewall.netns);
    stage
        .scene
        .finish([user, stage.gateway.netns].into_iter().chain(firewalls))
}
