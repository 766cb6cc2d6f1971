//! Many workloads with many wires.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;
use tieline_proto::tieline::admin::v1::NetworkService;

use super::{Node, Wire, service};
use crate::stop;

/// Unanswered Requests at a time.
pub(crate) const IN_FLIGHT: usize = 64;
/// Wires that end in the same workload: nobody has ten thousand interfaces.
const WIRES_PER_WORKLOAD: u32 = 100;
const SERVICE: &str = "bench-many";
const PREFIX: &str = "10.208.0.0/12";

/// Workloads enough for so many wires: as many clients, and as many endpoints each time that some register.
pub(crate) struct Crowd {
    count: u32,
    clients: Vec<Arc<NetNs>>,
    endpoints: Vec<Arc<NetNs>>,
}

impl Crowd {
    /// How many workloads so many wires have at either end.
    pub(crate) const fn workloads(wires: u32) -> u32 {
        wires.div_ceil(WIRES_PER_WORKLOAD)
    }

    /// Declares their service and registers the endpoints with these labels.
    pub(crate) fn gather(node: &Node, count: u32, labels: &[(&str, &str)]) -> Result<Self> {
        node.control().apply_service(Self::service())?;
        let mut crowd = Self {
            count,
            clients: Vec::new(),
            endpoints: Vec::new(),
        };
        for _ in 0..Self::workloads(count) {
            stop::check()?;
            crowd.clients.push(Arc::new(NetNs::new("bench-mc")?));
        }
        crowd.serve(node, labels)?;
        Ok(crowd)
    }

    /// Registers as many endpoints again, with these labels.
    pub(crate) fn serve(&mut self, node: &Node, labels: &[(&str, &str)]) -> Result<()> {
        for _ in &self.clients {
            stop::check()?;
            let endpoint = Arc::new(NetNs::new("bench-ms")?);
            let name = format!("bench-endpoint-{}", self.endpoints.len());
            node.api().register(SERVICE, &name, &endpoint, labels)?;
            self.endpoints.push(endpoint);
        }
        Ok(())
    }

    /// Their service as it was declared.
    pub(crate) fn service() -> NetworkService {
        service(SERVICE, PREFIX)
    }

    /// All endpoints, in the order in which they were registered.
    pub(crate) fn endpoints(&self) -> &[Arc<NetNs>] {
        &self.endpoints
    }

    /// The id of wire `n`.
    pub(crate) fn id(n: u32) -> String {
        format!("bench-many-{n}")
    }

    /// The client of wire `n`.
    pub(crate) fn client(&self, n: usize) -> Result<&NetNs> {
        let client = self.clients.get(n % self.clients.len().max(1));
        client.map(AsRef::as_ref).context("a crowd without clients")
    }

    /// Requests all wires, many at a time. Those that are there are refreshed.
    pub(crate) fn connect(&self, node: &Node) -> Result<Vec<Wire>> {
        let made = node.api().request_all(SERVICE, self.wires(), IN_FLIGHT);
        made.with_context(|| format!("the node says: {}", node.log()))
    }

    /// The same by so many clients, each with a connection of its own and one Request at a time; and how many
    /// Requests a second that made.
    pub(crate) fn connect_by(&self, node: &Node, clients: usize) -> Result<(Vec<Wire>, f64)> {
        let clients = node.api().clients(clients)?;
        let start = Instant::now();
        let made = clients.request_all(SERVICE, self.wires());
        let elapsed = start.elapsed();
        let made = made.with_context(|| format!("the node says: {}", node.log()))?;
        Ok((made, f64::from(self.count) / elapsed.as_secs_f64()))
    }

    /// What is asked for; consecutive wires are different clients'.
    fn wires(&self) -> impl Iterator<Item = (String, &NetNs)> {
        let clients = self.clients.iter().cycle().map(AsRef::as_ref);
        (0..self.count)
            .zip(clients)
            .map(|(n, client)| (Self::id(n), client))
    }
}
