//! Local vWires: what a packet, a round trip and a connection cost on Tieline and on its peers.

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
}

impl Way {
    fn lay(self) -> Result<Path> {
        match self {
            Self::Direct => Path::direct(),
            Self::Bridge => Path::bridge(),
            Self::RedirectPeer => Path::redirect_peer(),
        }
    }
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
        metric: "setup_per_s",
        wires: Some(10_000),
        bound: Bound::AtLeast(1000.0),
    },
    Goal {
        metric: "agent_rss_mib",
        wires: Some(0),
        bound: Bound::AtMost(30.0),
    },
    Goal {
        metric: "agent_rss_mib",
        wires: Some(10_000),
        bound: Bound::AtMost(150.0),
    },
];

/// Runs the suite, prints its table and writes its JSON.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let environment = Environment::read()?;
    println!("{}\n", environment.describe());
    let ways = if arguments.paths.is_empty() {
        Way::value_variants()
    } else {
        &arguments.paths
    };
    let chosen = if arguments.only.is_empty() {
        Chosen::value_variants()
    } else {
        &arguments.only
    };
    let (rounds, effort) = if arguments.quick {
        (1, Effort::QUICK)
    } else {
        (arguments.rounds, Effort::FULL)
    };

    let paths = ways.iter().map(|way| way.lay()).collect::<Result<Vec<_>>>()?;
    for path in &paths {
        measure::check(path)?;
    }
    let mut collector = Collector::default();
    let mut frames = FrameMeter::new()?;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for metric in chosen {
            for path in &paths {
                stop::check()?;
                sample(*metric, path, effort, round, &mut frames, &mut collector)
                    .with_context(|| format!("{metric:?} on {}", path.name))?;
            }
        }
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

/// Takes one sample of one metric on one path.
fn sample(
    metric: Chosen,
    path: &Path,
    effort: Effort,
    round: u32,
    frames: &mut FrameMeter,
    into: &mut Collector,
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
    };
    into.add(path.name, metric, None, round, value);
    Ok(())
}
