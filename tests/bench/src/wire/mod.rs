//! Local vWires: what a packet, a round trip and a connection cost on Tieline and on its peers.

mod scale;
mod stage;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    environment::Environment,
    goals::{Bound, Goal},
    measure::{self, Effort, FrameMeter},
    path::Path,
    report::{Collector, Metric, Report},
    stop, table,
};
use stage::Stage;

/// What to measure and how long.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Each metric once and briefly: shows that everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds; medians of fewer than 5 are worth little.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
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
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench/wire.json")]
    output: PathBuf,
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

const NS_PER_PACKET: Metric = Metric {
    name: "ns_per_packet",
    unit: "ns",
    compared: true,
};
const ADDED_NS: Metric = Metric {
    name: "added_ns_per_packet",
    unit: "ns",
    compared: false,
};
const RTT: Metric = Metric {
    name: "rtt_p50_us",
    unit: "us",
    compared: true,
};
const UDP_PPS: Metric = Metric {
    name: "udp_pps",
    unit: "1/s",
    compared: true,
};
const TCP_GBPS: Metric = Metric {
    name: "tcp_gbps",
    unit: "Gbit/s",
    compared: true,
};
const CRR: Metric = Metric {
    name: "crr_per_s",
    unit: "1/s",
    compared: true,
};

const SETUP: Metric = Metric {
    name: "setup_per_s",
    unit: "1/s",
    compared: false,
};
const DATAPATH_SETUP: Metric = Metric {
    name: "datapath_setup_per_s",
    unit: "1/s",
    compared: false,
};
const CLOSE: Metric = Metric {
    name: "close_per_s",
    unit: "1/s",
    compared: false,
};
const RSS: Metric = Metric {
    name: "agent_rss_mib",
    unit: "MiB",
    compared: false,
};
const MAPS: Metric = Metric {
    name: "map_mib",
    unit: "MiB",
    compared: false,
};
const FIRST_PACKET: Metric = Metric {
    name: "first_packet_ms",
    unit: "ms",
    compared: false,
};

/// Design §9, the lines about local wires.
const GOALS: &[Goal] = &[
    Goal {
        metric: ADDED_NS.name,
        wires: None,
        bound: Bound::AtMost(130.0),
    },
    Goal {
        metric: RTT.name,
        wires: None,
        bound: Bound::RatioAtMost(1.04),
    },
    Goal {
        metric: TCP_GBPS.name,
        wires: None,
        bound: Bound::RatioAtLeast(0.97),
    },
    Goal {
        metric: UDP_PPS.name,
        wires: None,
        bound: Bound::RatioAtLeast(0.98),
    },
    Goal {
        metric: SETUP.name,
        wires: Some(10_000),
        bound: Bound::AtLeast(1000.0),
    },
    Goal {
        metric: FIRST_PACKET.name,
        wires: Some(1),
        bound: Bound::AtMost(5.0),
    },
    Goal {
        metric: RSS.name,
        wires: Some(0),
        bound: Bound::AtMost(30.0),
    },
    Goal {
        metric: RSS.name,
        wires: Some(10_000),
        bound: Bound::AtMost(150.0),
    },
    Goal {
        metric: ADDED_NS.name,
        wires: Some(10_000),
        bound: Bound::AtMost(130.0),
    },
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
        let all_or = |given: &[_], all: &[_]| {
            if given.is_empty() {
                all.to_vec()
            } else {
                given.to_vec()
            }
        };
        let ways = if arguments.paths.is_empty() {
            Way::value_variants().to_vec()
        } else {
            arguments.paths.clone()
        };
        let chosen = all_or(&arguments.only, Chosen::value_variants());
        let (rounds, effort) = if arguments.quick {
            (1, Effort::QUICK)
        } else {
            (arguments.rounds, Effort::FULL)
        };
        // A quick run shows that scale is measured, not how far it goes.
        let most = if arguments.quick { 100 } else { u32::MAX };
        let mut wires: Vec<u32> = arguments.wires.iter().map(|&count| count.min(most)).collect();
        wires.dedup();
        Self {
            rounds,
            effort,
            ways,
            chosen,
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
    let environment = Environment::read()?;
    println!("{}\n", environment.describe());
    let plan = Plan::of(arguments);
    let mut collector = Collector::default();
    let mut frames = FrameMeter::new()?;
    if plan.chosen.iter().any(|metric| !metric.is_about_scale()) {
        compare_paths(&plan, &mut frames, &mut collector)?;
    }
    if plan.ways.contains(&Way::Tieline) {
        scale::run(&plan, &mut frames, &mut collector)?;
    }
    let report = Report {
        environment,
        rows: collector.rows(),
    };
    println!("{}", table::render(&report.rows, "tieline", GOALS));
    report.write(&arguments.output)?;
    println!("\nwritten to {}", arguments.output.display());
    Ok(())
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
            let Some(direct) = into.get(crate::report::REFERENCE, NS_PER_PACKET, round) else {
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
