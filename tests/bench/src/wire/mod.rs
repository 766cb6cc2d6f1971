//! Local vWires: what a packet, a round trip and a connection cost on Tieline and on its peers.

mod scale;
mod stage;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    goals::{Bound, Goal},
    measure::{self, Effort, FrameMeter},
    path::Path,
    report::{Collector, Metric},
    stop,
    suite::{self, Run},
};
use stage::Stage;

/// What to measure and how long.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: suite::Arguments,
    /// Measure only these.
    #[arg(long, value_delimiter = ',', value_name = "METRIC,…")]
    only: Vec<Chosen>,
    /// Take only these paths. Ratios need `direct` among them.
    #[arg(long, value_delimiter = ',', value_name = "PATH,…")]
    paths: Vec<Way>,
    /// How many wires the node holds for the metrics that depend on it.
    #[arg(long, value_delimiter = ',', value_name = "COUNT,…", default_values_t = [1, 100, 10_000])]
    wires: Vec<u32>,
    /// How Tieline attaches its programs.
    #[arg(long, default_value = "auto", value_parser = ["auto", "tcx", "clsact"])]
    attach: String,
}

/// A path by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Way {
    Direct,
    Bridge,
    RedirectPeer,
    Tieline,
}

/// A metric by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Chosen {
    AddedNsPerPacket,
    RttP50Us,
    UdpPps,
    TcpGbps,
    CrrPerS,
    SetupPerS,
    AgentRssMib,
    MapMib,
    FirstPacketMs,
    DatapathSetupPerS,
}

impl Chosen {
    /// Whether it asks what a node with many wires does, instead of comparing paths.
    fn is_about_scale(self) -> bool {
        self.needs_a_node() || self == Self::DatapathSetupPerS
    }

    /// Whether it asks that of a running node.
    fn needs_a_node(self) -> bool {
        matches!(
            self,
            Self::SetupPerS | Self::AgentRssMib | Self::MapMib | Self::FirstPacketMs
        )
    }
}

/// The path that ratios refer to.
const DIRECT: &str = "direct";
/// The path that is judged.
const TIELINE: &str = "tieline";

const NS_PER_PACKET: Metric = Metric::new("ns_per_packet", "ns").beside(DIRECT);
const ADDED_NS: Metric = Metric::new("added_ns_per_packet", "ns");
const RTT: Metric = Metric::new("rtt_p50_us", "us").beside(DIRECT);
const UDP_PPS: Metric = Metric::new("udp_pps", "1/s").beside(DIRECT);
const TCP_GBPS: Metric = Metric::new("tcp_gbps", "Gbit/s").beside(DIRECT);
const CRR: Metric = Metric::new("crr_per_s", "1/s").beside(DIRECT);

const SETUP: Metric = Metric::new("setup_per_s", "1/s");
const DATAPATH_SETUP: Metric = Metric::new("datapath_setup_per_s", "1/s");
const CLOSE: Metric = Metric::new("close_per_s", "1/s");
const RSS: Metric = Metric::new("agent_rss_mib", "MiB");
const MAPS: Metric = Metric::new("map_mib", "MiB");
const FIRST_PACKET: Metric = Metric::new("first_packet_ms", "ms");

/// Design §9, the lines about local wires.
const GOALS: &[Goal] = &[
    Goal::new(TIELINE, ADDED_NS, None, Bound::AtMost(130.0)),
    Goal::new(TIELINE, RTT, None, Bound::RatioAtMost(1.04)),
    Goal::new(TIELINE, TCP_GBPS, None, Bound::RatioAtLeast(0.97)),
    Goal::new(TIELINE, UDP_PPS, None, Bound::RatioAtLeast(0.98)),
    Goal::new(TIELINE, SETUP, Some(10_000), Bound::AtLeast(1000.0)),
    Goal::new(TIELINE, FIRST_PACKET, Some(1), Bound::AtMost(5.0)),
    Goal::new(TIELINE, RSS, Some(0), Bound::AtMost(30.0)),
    Goal::new(TIELINE, RSS, Some(10_000), Bound::AtMost(150.0)),
    Goal::new(TIELINE, ADDED_NS, Some(10_000), Bound::AtMost(130.0)),
];

/// What a run does, after defaults and `--quick`.
struct Plan {
    rounds: u32,
    effort: Effort,
    ways: Vec<Way>,
    chosen: Vec<Chosen>,
    wires: Vec<u32>,
    attach: String,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        let quick = arguments.run.quick;
        let effort = if quick { Effort::QUICK } else { Effort::FULL };
        // A quick run shows that scale is measured, not how far it goes.
        let most = if quick { 100 } else { u32::MAX };
        let mut wires: Vec<u32> = arguments.wires.iter().map(|&count| count.min(most)).collect();
        wires.dedup();
        Self {
            rounds: arguments.run.rounds(),
            effort,
            ways: suite::all_or(&arguments.paths),
            chosen: suite::all_or(&arguments.only),
            wires,
            attach: arguments.attach.clone(),
        }
    }

    fn wants(&self, metric: Chosen) -> bool {
        self.chosen.contains(&metric)
    }
}

/// Runs the suite, prints its table and writes its JSON.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let run = Run::begin()?;
    let plan = Plan::of(arguments);
    let mut collector = Collector::default();
    let mut frames = FrameMeter::new()?;
    if plan.chosen.iter().any(|metric| !metric.is_about_scale()) {
        compare_paths(&plan, &mut frames, &mut collector)?;
    }
    if plan.ways.contains(&Way::Tieline) {
        scale::run(&plan, &mut frames, &mut collector)?;
    }
    run.end("wire", &collector, GOALS, &arguments.run)
}

/// Every metric on every path, round by round.
fn compare_paths(plan: &Plan, frames: &mut FrameMeter, collector: &mut Collector) -> Result<()> {
    let stage = if plan.ways.contains(&Way::Tieline) {
        Some(Stage::build(&plan.attach)?)
    } else {
        None
    };
    let mut paths = Vec::new();
    for way in &plan.ways {
        paths.push(match (way, &stage) {
            (Way::Direct, _) => Path::direct()?,
            (Way::Bridge, _) => Path::bridge()?,
            (Way::RedirectPeer, _) => Path::redirect_peer()?,
            (Way::Tieline, Some(stage)) => stage.path()?,
            (Way::Tieline, None) => continue,
        });
    }
    for path in &paths {
        measure::check(path)?;
    }
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        if let Some(stage) = &stage {
            stage.refresh()?;
        }
        for metric in plan.chosen.iter().filter(|metric| !metric.is_about_scale()) {
            for path in &paths {
                stop::check()?;
                sample(*metric, path, plan.effort, round, (frames, collector))
                    .with_context(|| format!("{metric:?} on {}", path.name))?;
            }
        }
    }
    drop(paths);
    stage.map_or(Ok(()), Stage::end)
}

/// Takes one sample of one metric on one path.
fn sample(
    metric: Chosen,
    path: &Path,
    effort: Effort,
    round: u32,
    (frames, into): (&mut FrameMeter, &mut Collector),
) -> Result<()> {
    let (metric, value) = match metric {
        Chosen::AddedNsPerPacket => {
            let ns = frames.ns_per_packet(path, effort.frame_chunks)?;
            into.add(path.name, NS_PER_PACKET, None, round, ns);
            let Some(direct) = into.get(DIRECT, NS_PER_PACKET, round) else {
                return Ok(());
            };
            (ADDED_NS, ns - direct)
        }
        Chosen::RttP50Us => (RTT, measure::rtt_p50(path, effort)?),
        Chosen::UdpPps => (UDP_PPS, measure::udp_pps(path, effort)?),
        Chosen::TcpGbps => (TCP_GBPS, measure::tcp_gbps(path, effort)?),
        Chosen::CrrPerS => (CRR, measure::crr(path, effort)?),
        Chosen::SetupPerS
        | Chosen::AgentRssMib
        | Chosen::MapMib
        | Chosen::FirstPacketMs
        | Chosen::DatapathSetupPerS => return Ok(()),
    };
    into.add(path.name, metric, None, round, value);
    Ok(())
}
