//! A thousand live wires that one change of their service leads elsewhere, and what a stream on one of them notices.

use std::{
    collections::HashMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{EchoStream, Responder, UdpPlan, eventually};
use tieline_proto::tieline::admin::v1::NetworkService;

use super::{Plan, REWIRE, REWIRE_LOST};
use crate::{
    report::Collector,
    stop,
    tieline::{Crowd, IN_FLIGHT, Node, Wire},
};

/// The numbered stream.
pub(super) const STREAM: &str = "a numbered stream";
const WIRES: u32 = 1000;
const LABEL: &str = "version";
const VERSIONS: [&str; 2] = ["old", "new"];
const PORT: u16 = 7007;
const LIMIT: Duration = Duration::from_secs(60);
/// How often control is asked how far the node is.
const LOOK: Duration = Duration::from_millis(1);
/// The stream goes on for so long before a change and after it: ends that are not wanted any more are taken away then.
const AROUND: Duration = Duration::from_millis(500);

/// Leads all wires from the endpoints of one version to those of the other, in each round once.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let node = Node::start(&plan.attach)?;
    let wires = plan.enough(WIRES, 50);
    let mut crowd = Crowd::gather(&node, wires, &[(LABEL, VERSIONS[0])])?;
    let made = crowd.connect(&node)?;
    crowd.serve(&node, &[(LABEL, VERSIONS[1])])?;
    let responders = crowd
        .endpoints()
        .iter()
        .map(|netns| Responder::start(netns, PORT));
    let responders = responders.collect::<Result<Vec<_>>>()?;
    let watched = made.iter().find(|wire| wire.id == Crowd::id(0));
    let watched = watched.context("the first wire was not made")?;
    // Half of the endpoints are of either version. The first change binds the wires to where they are.
    let (older, newer) = responders.split_at(responders.len() / 2);
    node.control().apply_service(version(VERSIONS[0]))?;
    for round in 0..plan.rounds {
        eprintln!("re-wiring, round {} of {}", round + 1, plan.rounds);
        stop::check()?;
        let (to, there) = if round % 2 == 0 {
            (VERSIONS[1], newer)
        } else {
            (VERSIONS[0], older)
        };
        crowd.connect(&node).context("refresh")?;
        let mut add = |path, metric, value| collector.add(path, metric, Some(wires), round, value);
        let noticed = change(&node, &crowd, watched, version(to), there)?;
        ensure!(
            noticed.moved == wires,
            "{} of {wires} wires are moved",
            noticed.moved
        );
        add("planned", REWIRE, noticed.planned.as_secs_f64() * 1e3);
        add("all moved", REWIRE, noticed.all_moved.as_secs_f64() * 1e3);
        add(STREAM, REWIRE, noticed.stream.as_secs_f64() * 1e3);
        add(STREAM, REWIRE_LOST, noticed.lost as f64);
    }
    drop(responders);
    node.api().close_all(&made, IN_FLIGHT)?;
    node.stop()
}

/// What a change did.
struct Noticed {
    /// How many wires control says are moved.
    moved: u32,
    /// From applying it until control answered.
    planned: Duration,
    /// Until the node had carried out the plan with the last wire in it.
    all_moved: Duration,
    /// Until the first datagram of the stream that one of the new endpoints answered.
    stream: Duration,
    /// Datagrams of the stream that nobody answered.
    lost: u64,
}

fn change(
    node: &Node,
    crowd: &Crowd,
    wire: &Wire,
    service: NetworkService,
    there: &[Responder],
) -> Result<Noticed> {
    let to = SocketAddr::from((wire.endpoint, PORT));
    let stream = EchoStream::start(crowd.client(0)?, to, UdpPlan::default())?;
    thread::sleep(AROUND);
    ensure!(
        stream.answered() > 0,
        "the stream is not answered before the change"
    );
    let begun = Instant::now();
    let moved = node.control().apply_service(service)?;
    let planned = begun.elapsed();
    let generation = node.control().node()?.planned_generation;
    let all_moved = loop {
        if node.control().node()?.applied_generation >= generation {
            break begun.elapsed();
        }
        stop::check()?;
        ensure!(
            begun.elapsed() < LIMIT,
            "not moved within {LIMIT:?}: {}",
            node.log()
        );
        thread::sleep(LOOK);
    };
    let by_any = |stream: &EchoStream| there.iter().any(|one| stream.answered_by(one.id()) > 0);
    eventually(LIMIT, "the stream to be answered by a new endpoint", || {
        Ok(by_any(&stream))
    })?;
    thread::sleep(AROUND);
    let report = stream.finish()?;
    let first = there.iter().filter_map(|one| report.first_by(one.id())).min();
    Ok(Noticed {
        moved,
        planned,
        all_moved,
        stream: first.context("no answer from a new endpoint")? - begun,
        lost: report.datagrams.lost + report.datagrams.send_errors,
    })
}

/// The service, for endpoints of this version only.
fn version(version: &str) -> NetworkService {
    NetworkService {
        selector: HashMap::from([(LABEL.to_owned(), version.to_owned())]),
        ..Crowd::service()
    }
}
