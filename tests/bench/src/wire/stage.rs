//! A node with one service and one endpoint, which a client requests wires to.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use crate::{
    path::{End, Path},
    tieline::{Node, Wire},
};

const SERVICE: &str = "bench-one";
const PREFIX: &str = "10.202.0.0/16";
/// The connection that [`Stage::path`] leads over.
const CONNECTION: &str = "bench-path";
const LOST_AFTER: Duration = Duration::from_secs(2);

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
        node.api().declare_service(SERVICE, PREFIX)?;
        node.api().register(SERVICE, "bench-endpoint", &endpoint)?;
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
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        let sink = self.endpoint.run(|| Ok(UdpSocket::bind(any)?))?;
        sink.set_read_timeout(Some(LOST_AFTER))?;
        let port = sink.local_addr()?.port();
        let source = self.client.run(|| Ok(UdpSocket::bind(any)?))?;

        let start = Instant::now();
        let wire = self.request(id)?;
        source.send_to(b"first", (wire.endpoint, port))?;
        sink.recv(&mut [0; 16]).context("the first packet was lost")?;
        let elapsed = start.elapsed();

        self.node.api().close_all(&[wire], 1)?;
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// Ends the node in order, which tells whether it could.
    pub(crate) fn end(self) -> Result<()> {
        self.node.stop()
    }
}
