//! A node with one service and one endpoint, which a client requests wires to.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use crate::{
    path::{End, Path},
    tieline::{Node, Wire, first_packet_ms},
};

const SERVICE: &str = "bench-one";
const PREFIX: &str = "10.202.0.0/16";
/// The connection that [`Stage::path`] leads over.
const CONNECTION: &str = "bench-path";

/// The node and its two workloads.
pub(crate) struct Stage {
    node: Node,
    client: Arc<NetNs>,
    endpoint: Arc<NetNs>,
}

impl Stage {
    /// Starts the node and registers the endpoint.
    pub(crate) fn build(attach: &str) -> Result<Self> {
        let (client, endpoint) = (Arc::new(NetNs::new("bench-c")?), Arc::new(NetNs::new("bench-s")?));
        let node = Node::start(attach)?;
        node.control().declare_service(SERVICE, PREFIX)?;
        node.api().register(SERVICE, "bench-endpoint", &endpoint, &[])?;
        Ok(Self {
            node,
            client,
            endpoint,
        })
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Tieline's path: a vWire from the client to the endpoint.
    pub(crate) fn path(&self) -> Result<Path> {
        let wire = self.request(CONNECTION)?;
        let status = self.node.api().wire_status(&wire.id)?;
        let branch = status.branches.into_iter().next().context("no branch")?;
        let (near, far) = (
            status.client.context("no client end")?,
            branch.endpoint.context("no endpoint end")?,
        );
        let client = End::find(&self.client, &near.workload_interface, wire.client)?;
        let server = End::find(&self.endpoint, &far.workload_interface, wire.endpoint)?;
        Ok(Path::laid(
            "tieline",
            [client, server],
            (Arc::clone(self.node.netns()), near.host_interface),
        ))
    }

    /// Keeps the path's wire from expiring.
    pub(crate) fn refresh(&self) -> Result<()> {
        self.request(CONNECTION).map(drop)
    }

    fn request(&self, id: &str) -> Result<Wire> {
        let answer = self.node.api().request(id, SERVICE, &self.client);
        answer.with_context(|| format!("connection {id}; the node says: {}", self.node.log()))
    }

    /// Time from sending a Request until the endpoint has the first datagram, in milliseconds. The wire is closed
    /// again.
    pub(crate) fn first_packet_ms(&self, id: &str) -> Result<f64> {
        let ends = [self.client.as_ref(), self.endpoint.as_ref()];
        first_packet_ms(&self.node, ends, SERVICE, id)
    }

    /// Ends the node in order, which tells whether it could.
    pub(crate) fn end(self) -> Result<()> {
        self.node.stop()
    }
}
