//! The control plane: what asking, planning, restoring and changing cost, on a running node and at scale.

mod cost;
mod first;
mod heal;
mod large;
mod plan;
mod requests;
mod restore;
mod rewire;
mod world;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    goals::{Bound, Goal},
    report::{Collector, Metric},
    suite::{self, Run},
};

/// What to measure and how long.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench control                                  everything
  cargo xtask bench control --quick                          does it work at all
  cargo xtask bench control --only first_packet_ms --rounds 20
  cargo xtask bench control --only plan,restore --connections 10000
  cargo xtask bench control --only requests_per_s,wire_cost --attach clsact")]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: suite::Arguments,
    /// Measure only these.
    #[arg(long, value_delimiter = ',', value_name = "METRIC,…")]
    only: Vec<Chosen>,
    /// How many connections planning and restoring are measured with; a hundred for each node.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    connections: u32,
    /// How the node attaches its programs.
    #[arg(long, default_value = "auto", value_parser = ["auto", "tcx", "clsact"])]
    attach: String,
}

/// A metric, or several that are measured together, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Chosen {
    /// From sending a Request until the endpoint has the first datagram, with nothing between and through 5 functions.
    FirstPacketMs,
    /// Requests for new wires and for wires that are there, by 1, 8 and 64 clients at once.
    RequestsPerS,
    /// What a wire takes of time, and of the kernel's, the maps' and the process's memory.
    WireCost,
    /// Leading 1,000 live wires elsewhere by one change.
    Rewire,
    /// Endpoints that die under traffic, with and without a backup.
    Heal,
    /// Planning for many nodes: everything, and one change.
    Plan,
    /// Starting control on a store with many connections, and what they take.
    Restore,
}

/// One endpoint and nothing between.
const ONE_HOP: &str = "1 hop";
/// Five routing functions between client and endpoint.
const CHAIN: &str = "5 functions";
/// One client that waits for each answer.
const ONE_CLIENT: &str = "1 client";

const FIRST_PACKET: Metric = Metric::new("first_packet_ms", "ms").beside(ONE_HOP).distributed();
const REQUESTS: Metric = Metric::new("requests_per_s", "1/s").beside(ONE_CLIENT);
const REFRESHES: Metric = Metric::new("refreshes_per_s", "1/s").beside(ONE_CLIENT);
const WIRE_TIME: Metric = Metric::new("ms_per_wire", "ms");
const WIRE_BYTES: Metric = Metric::new("bytes_per_wire", "B");
const REWIRE: Metric = Metric::new("rewire_ms", "ms").distributed();
const REWIRE_LOST: Metric = Metric::new("rewire_lost", "packets");
const HEAL: Metric = Metric::new("heal_ms", "ms").distributed();
const HEAL_LOST: Metric = Metric::new("heal_lost", "packets").distributed();
const PLAN_FULL: Metric = Metric::new("plan_full_s", "s");
const PLAN_ONE: Metric = Metric::new("plan_one_ms", "ms");
const REGISTRY_REQUEST: Metric = Metric::new("registry_request_us", "us");
const RESTORE: Metric = Metric::new("restore_s", "s");
const CONNECTION_BYTES: Metric = Metric::new("bytes_per_connection", "B");

/// So many connections on a thousand nodes are what the design asks for.
const DESIGNED: Option<u32> = Some(100_000);

/// Design §9, the lines about the control plane.
const GOALS: &[Goal] = &[
    Goal::new(ONE_HOP, FIRST_PACKET, None, Bound::AtMost(5.0)),
    Goal::new(CHAIN, FIRST_PACKET, None, Bound::AtMost(50.0)),
    Goal::new(requests::MOST_CLIENTS, REQUESTS, None, Bound::AtLeast(1000.0)),
    Goal::new(rewire::STREAM, REWIRE_LOST, Some(1000), Bound::AtMost(0.0)),
    Goal::new(heal::GONE, HEAL, None, Bound::AtMost(150.0)),
    Goal::new(heal::SILENT, HEAL, None, Bound::AtMost(150.0)),
    Goal::new(heal::DOWN, HEAL, None, Bound::AtMost(150.0)),
    Goal::new(heal::HEALED, HEAL, None, Bound::AtMost(50.0)),
    Goal::new(plan::SNAPSHOTS, PLAN_FULL, DESIGNED, Bound::AtMost(2.0)),
    Goal::new(plan::ALL_MOVE, PLAN_FULL, DESIGNED, Bound::AtMost(2.0)),
    Goal::new(plan::ALL_STAY, PLAN_FULL, DESIGNED, Bound::AtMost(2.0)),
    Goal::new(plan::REQUEST, PLAN_ONE, DESIGNED, Bound::AtMost(10.0)),
    Goal::new(plan::CLOSE, PLAN_ONE, DESIGNED, Bound::AtMost(10.0)),
    Goal::new(plan::DRAIN, PLAN_ONE, DESIGNED, Bound::AtMost(10.0)),
    Goal::new(plan::DEATH, PLAN_ONE, DESIGNED, Bound::AtMost(10.0)),
    Goal::new(plan::OTHER, PLAN_ONE, DESIGNED, Bound::AtMost(10.0)),
];

/// What a run does, after defaults and `--quick`.
struct Plan {
    rounds: u32,
    quick: bool,
    chosen: Vec<Chosen>,
    connections: u32,
    attach: String,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        let quick = arguments.run.quick;
        // A quick run shows that scale is measured, not how far it goes.
        let most = if quick { 2000 } else { u32::MAX };
        Self {
            rounds: arguments.run.rounds(),
            quick,
            chosen: suite::all_or(&arguments.only),
            connections: arguments.connections.min(most),
            attach: arguments.attach.clone(),
        }
    }

    fn wants(&self, metric: Chosen) -> bool {
        self.chosen.contains(&metric)
    }

    /// This many, or few if nothing but that it works is asked.
    fn enough(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }
}

/// Runs the suite, prints its table and writes its JSON; what was measured before something failed, too.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let run = Run::begin()?;
    let mut collector = Collector::default();
    let outcome = measure(&Plan::of(arguments), &mut collector);
    run.end("control", &collector, GOALS, &arguments.run)?;
    outcome
}

fn measure(plan: &Plan, into: &mut Collector) -> Result<()> {
    if plan.wants(Chosen::FirstPacketMs) {
        first::run(plan, into).context("first packets")?;
    }
    if plan.wants(Chosen::RequestsPerS) {
        requests::run(plan, into).context("Requests per second")?;
    }
    if plan.wants(Chosen::WireCost) {
        cost::run(plan, into).context("the cost of a wire")?;
    }
    if plan.wants(Chosen::Rewire) {
        rewire::run(plan, into).context("re-wiring")?;
    }
    if plan.wants(Chosen::Heal) {
        heal::run(plan, into).context("healing")?;
    }
    if plan.wants(Chosen::Plan) || plan.wants(Chosen::Restore) {
        large::run(plan, into).context("many connections")?;
    }
    Ok(())
}
