//! Metrics, and whether the agent is ready.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    sync::{Arc, OnceLock, atomic::Ordering, mpsc},
    time::Duration,
};

use dataplane_common::{Reason, abi::WireCounters};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, NoLabelSet},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{
    status::{SessionState, Status},
    worker::{Job, View},
};
use crate::{
    datapath::ObserveError,
    liveness::Stats,
    reconcile::{EndView, WireView},
};

/// What the agent counts itself. Counts of packets are not here: they are read from the maps at each scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) passes: Family<PassLabels, Histogram, fn() -> Histogram>,
    pub(crate) pass_errors: Family<PassLabels, Counter>,
    pub(crate) operations: Counter,
    pub(crate) deltas: Counter,
    pub(crate) wire_failures: Family<FailureLabels, Counter>,
    pub(crate) sessions: Counter,
    pub(crate) switches: Counter,
    pub(crate) calls: Family<CallLabels, Histogram, fn() -> Histogram>,
}

/// Which kind of pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PassLabels {
    pub(crate) kind: PassKind,
}

/// Why the plan and the kernel were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PassKind {
    /// A whole plan has come.
    Snapshot,
    /// One or more changes have come.
    Delta,
    /// It was time to look.
    Repair,
    /// It was time for ends to go.
    Linger,
    /// It was time to look for flows at endpoints that drain.
    Drain,
    /// What wires lead to has died or come back.
    Switch,
}

impl EncodeLabelValue for PassKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::Repair => "repair",
            Self::Linger => "linger",
            Self::Drain => "drain",
            Self::Switch => "switch",
        })
    }
}

/// Which kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailureLabels {
    pub(crate) kind: &'static str,
}

/// Which call at the local API, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) method: &'static str,
    pub(crate) code: &'static str,
}

/// 100 µs to 26 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 4.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            passes: Family::new_with_constructor(seconds as fn() -> Histogram),
            pass_errors: Family::default(),
            operations: Counter::default(),
            deltas: Counter::default(),
            wire_failures: Family::default(),
            sessions: Counter::default(),
            switches: Counter::default(),
            calls: Family::new_with_constructor(seconds as fn() -> Histogram),
        }
    }
}

/// One thing that must be there before the agent does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub ready: bool,
    /// A sentence for the operator.
    pub detail: String,
}

/// How long a scrape waits for the worker. It may be in the middle of a large plan.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the worker takes jobs, once it has started.
pub(crate) type Jobs = Arc<OnceLock<tokio::sync::mpsc::WeakSender<Job>>>;

/// Looks into a running agent. Cheap to clone; stays valid when the agent has ended.
#[derive(Clone)]
pub struct AgentHandle {
    status: Arc<Status>,
    registry: Arc<Registry>,
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHandle")
            .field("node", &self.status.node)
            .finish_non_exhaustive()
    }
}

impl AgentHandle {
    pub(crate) fn new(status: Arc<Status>, jobs: Jobs) -> Self {
        let mut registry = Registry::with_prefix("tieline");
        register(&mut registry, &status.metrics);
        registry.register_collector(Box::new(Live {
            status: Arc::clone(&status),
            jobs,
        }));
        Self {
            status,
            registry: Arc::new(registry),
        }
    }

    /// Appends all metrics as OpenMetrics text, without the closing `# EOF`, so that others may append theirs.
    ///
    /// Counters of packets are read from the kernel at this moment, by the thread that also changes it; the call
    /// waits for its current pass, so make it where blocking is allowed (`tokio::task::spawn_blocking`). If that
    /// takes longer than five seconds, the text comes without them.
    pub fn render_metrics(&self, out: &mut String) -> fmt::Result {
        prometheus_client::encoding::text::encode_registry(out, &self.registry)
    }

    /// Whether the agent does its work, part by part. It is ready when all of them are.
    #[must_use]
    pub fn readiness(&self) -> Vec<Readiness> {
        let status = &self.status;
        let datapath = status
            .datapath()
            .map(|it| format!("programs loaded, attached by {}", it.attach_backend));
        let plan = status
            .has_plan()
            .then(|| format!("generation {} is in force", status.applied()));
        let (control, away) = match status.session() {
            SessionState::Up => (Some("the session is up".to_owned()), String::new()),
            SessionState::Away { reason } => (None, reason),
        };
        let api = status.serving().then(|| "accepting calls".to_owned());
        vec![
            item("datapath", datapath, "the kernel programs are not loaded yet"),
            item(
                "plan",
                plan,
                "no plan has come from control yet; wires of an earlier run keep forwarding",
            ),
            item("control", control, &away),
            item("local_api", api, "not accepting calls"),
        ]
    }
}

fn item(name: &'static str, ready: Option<String>, otherwise: &str) -> Readiness {
    Readiness {
        name,
        ready: ready.is_some(),
        detail: ready.unwrap_or_else(|| otherwise.to_owned()),
    }
}

fn register(registry: &mut Registry, metrics: &Metrics) {
    let m = metrics.clone();
    let passes = "Duration of passes that compared plan and kernel";
    registry.register_with_unit("reconcile_pass", passes, Unit::Seconds, m.passes);
    registry.register("reconcile_errors", "Passes that ended early", m.pass_errors);
    registry.register("operations", "Operations carried out on the kernel", m.operations);
    registry.register("deltas", "Changes of the plan applied", m.deltas);
    registry.register(
        "wire_failures",
        "Wires that did not forward, once per pass that found so",
        m.wire_failures,
    );
    registry.register("sessions", "Sessions opened with control", m.sessions);
    registry.register(
        "wire_switches",
        "Wires that the node led over their backup",
        m.switches,
    );
    registry.register_with_unit(
        "local_call",
        "Duration of calls at the local API",
        Unit::Seconds,
        m.calls,
    );
}

/// Everything that is read at the moment of a scrape.
struct Live {
    status: Arc<Status>,
    jobs: Jobs,
}

/// What the worker is asked for.
type Reading = Result<(Vec<WireView>, Vec<(Reason, u64)>), ObserveError>;

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        gauge(
            &mut encoder,
            "planned_generation",
            "The latest plan of control",
            status.planned(),
        )?;
        gauge(
            &mut encoder,
            "applied_generation",
            "The plan in the kernel's generation word",
            status.applied(),
        )?;
        let up = u64::from(status.session() == SessionState::Up);
        gauge(
            &mut encoder,
            "session_up",
            "1 while the session with control is up",
            up,
        )?;
        let wires = status.wire_counts();
        let mut family =
            encoder.encode_descriptor("wires", "Wires of the plan by state", None, MetricType::Gauge)?;
        let counts = [
            ("forwarding", wires.forwarding),
            ("parked", wires.parked),
            ("failed", wires.failed),
        ];
        for (state, count) in counts {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            family.encode_family(&[("state", state)])?.encode_gauge(&count)?;
        }
        if let Some(stats) = status.probe_stats() {
            encode_probes(&mut encoder, stats)?;
        }
        match self.read() {
            Some(Ok((wires, reasons))) => {
                encode_reasons(&mut encoder, &reasons)?;
                encode_wires(&mut encoder, &wires)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the counters cannot be read");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Live {
    fn read(&self) -> Option<Reading> {
        let jobs = self.jobs.get()?.upgrade()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let look = move |view: &dyn View| {
            let reading = view.wires(None).and_then(|wires| Ok((wires, view.reasons()?)));
            // Whoever asked may have given up.
            let _ = sender.send(reading);
        };
        if jobs.try_send(Job::Look(Box::new(look))).is_err() {
            tracing::warn!("the worker is too busy to read counters");
            return None;
        }
        receiver.recv_timeout(LOOK_TIMEOUT).ok()
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}

fn encode_probes(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let counters = [
        ("probes", "Probes sent", &stats.probes),
        ("path_deaths", "Paths that stopped answering", &stats.deaths),
        ("path_recoveries", "Paths that answered again", &stats.recoveries),
    ];
    for (name, help, value) in counters {
        encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value.load(Ordering::Relaxed), None)?;
    }
    let paths = stats.paths.load(Ordering::Relaxed);
    gauge(encoder, "watched_paths", "Paths that are watched", paths)?;
    let interval = stats.interval_us.load(Ordering::Relaxed);
    let help = "Microseconds from one look at a path to the next";
    gauge(encoder, "watch_interval_microseconds", help, interval)
}

fn encode_reasons(encoder: &mut DescriptorEncoder<'_>, counts: &[(Reason, u64)]) -> fmt::Result {
    let help = "Frames by what became of them";
    let mut family = encoder.encode_descriptor("packets", help, None, MetricType::Counter)?;
    for (reason, count) in counts {
        let labels = [("reason", reason.as_str())];
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    Ok(())
}

fn encode_wires(encoder: &mut DescriptorEncoder<'_>, wires: &[WireView]) -> fmt::Result {
    let help = "Frames that entered a wire and were handed to its other end";
    let mut family = encoder.encode_descriptor("wire_packets", help, None, MetricType::Counter)?;
    for (labels, counters) in wires.iter().flat_map(directions) {
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&counters.packets, None)?;
    }
    let help = "Octets that entered a wire and were handed to its other end";
    let mut family = encoder.encode_descriptor("wire", help, Some(&Unit::Bytes), MetricType::Counter)?;
    for (labels, counters) in wires.iter().flat_map(directions) {
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&counters.bytes, None)?;
    }
    Ok(())
}

/// Every end of a wire with its labels: what entered there. `endpoint` is the endpoint, or the function, that the end
/// is at or, for the client's, that the wire ends at.
fn directions(wire: &WireView) -> Vec<([(&'static str, &str); 4], WireCounters)> {
    let labels = |endpoint, direction| {
        [
            ("connection", wire.id.0.as_str()),
            ("network_service", wire.network_service.as_str()),
            ("endpoint", endpoint),
            ("direction", direction),
        ]
    };
    let last = wire
        .branches
        .first()
        .map_or("", |branch| branch.endpoint_name.as_str());
    let mut all = vec![(labels(last, "from_client"), wire.client.counters)];
    // Branches may share ends.
    let mut seen = BTreeSet::new();
    let mut add = |labels, end: &EndView| {
        if seen.insert(end.host_interface.clone()) {
            all.push((labels, end.counters));
        }
    };
    for branch in &wire.branches {
        for hop in &branch.hops {
            let name = hop.endpoint_name.as_str();
            add(labels(name, "from_inside"), &hop.inside);
            add(labels(name, "from_outside"), &hop.outside);
        }
        let name = branch.endpoint_name.as_str();
        add(labels(name, "from_endpoint"), &branch.endpoint);
    }
    all
}
