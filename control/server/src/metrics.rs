//! What control counts, for Prometheus.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// One call of the API, by its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

type Gauge64 = Gauge<u64, AtomicU64>;

/// Everything that control counts.
pub(crate) struct Metrics {
    registry: Registry,
    rpcs: Family<RpcLabels, Counter>,
    batch_commands: Histogram,
    commit_seconds: Histogram,
    commit_failures: Counter,
    revision: Gauge64,
    objects: Family<KindLabels, Gauge64>,
    planned: Family<NodeLabels, Gauge64>,
    applied: Family<NodeLabels, Gauge64>,
    connected: Family<NodeLabels, Gauge64>,
    monitors: Gauge64,
    streams_ended: Family<ReasonLabels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tieline_control"),
            rpcs: Family::default(),
            batch_commands: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            // 50 µs to 1.6 s: from memory to a disk in trouble.
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            commit_failures: Counter::default(),
            revision: Gauge::default(),
            objects: Family::default(),
            planned: Family::default(),
            applied: Family::default(),
            connected: Family::default(),
            monitors: Gauge::default(),
            streams_ended: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("rpcs", "Calls answered, by RPC and gRPC code", self.rpcs.clone());
        registry.register(
            "batch_commands",
            "Commands that shared one transaction of the store",
            self.batch_commands.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time until a transaction was durable",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register(
            "commit_failures",
            "Transactions that the store lost",
            self.commit_failures.clone(),
        );
        registry.register(
            "store_revision",
            "Revision of the latest change",
            self.revision.clone(),
        );
        registry.register("objects", "What is registered, by kind", self.objects.clone());
        registry.register(
            "node_planned_generation",
            "Generation of the node's plan",
            self.planned.clone(),
        );
        registry.register(
            "node_applied_generation",
            "Generation that the node has acknowledged",
            self.applied.clone(),
        );
        registry.register(
            "node_connected",
            "1 while the node's agent has a session",
            self.connected.clone(),
        );
        registry.register(
            "monitors",
            "Open MonitorConnections and Find streams",
            self.monitors.clone(),
        );
        registry.register(
            "streams_ended",
            "Streams that control ended, by reason",
            self.streams_ended.clone(),
        );
    }

    /// Appends everything in OpenMetrics text form, without the closing `# EOF`: others add theirs.
    pub(crate) fn render(&self, text: &mut String) {
        if let Err(error) = encode_registry(text, &self.registry) {
            // Writing to a string does not fail; a metric that cannot be written is a defect that the log must show.
            tracing::error!(%error, "cannot write the metrics");
        }
    }

    pub(crate) fn rpc(&self, rpc: &'static str, code: &'static str) {
        self.rpcs.get_or_create(&RpcLabels { rpc, code }).inc();
    }

    pub(crate) fn committed(&self, commands: usize, took: Duration, revision: u64) {
        self.batch(commands);
        self.commit_seconds.observe(took.as_secs_f64());
        self.revision.set(revision);
    }

    pub(crate) fn commit_failed(&self, commands: usize) {
        self.batch(commands);
        self.commit_failures.inc();
    }

    fn batch(&self, commands: usize) {
        // A batch has at most a few hundred commands.
        self.batch_commands
            .observe(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
    }

    pub(crate) fn objects(&self, kind: &'static str, count: usize) {
        self.objects.get_or_create(&KindLabels { kind }).set(count as u64);
    }

    pub(crate) fn node(&self, node: &str, planned: u64, applied: u64, connected: bool) {
        let labels = NodeLabels {
            node: node.to_owned(),
        };
        self.planned.get_or_create(&labels).set(planned);
        self.applied.get_or_create(&labels).set(applied);
        self.connected.get_or_create(&labels).set(u64::from(connected));
    }

    pub(crate) fn monitors(&self, count: usize) {
        self.monitors.set(count as u64);
    }

    pub(crate) fn stream_ended(&self, reason: &'static str) {
        self.streams_ended.get_or_create(&ReasonLabels { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered_under_the_prefix() {
        let metrics = Metrics::new();
        metrics.rpc("RequestConnection", "ok");
        metrics.rpc("RequestConnection", "ok");
        metrics.committed(17, Duration::from_millis(1), 9);
        metrics.node("n1", 4, 3, true);
        let mut text = String::new();
        metrics.render(&mut text);
        for line in [
            "tieline_control_rpcs_total{rpc=\"RequestConnection\",code=\"ok\"} 2",
            "tieline_control_batch_commands_bucket{le=\"32.0\"} 1",
            "tieline_control_store_revision 9",
            "tieline_control_node_applied_generation{node=\"n1\"} 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
