//! How long it takes from asking to the first packet.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use super::Node;

const LOST_AFTER: Duration = Duration::from_secs(2);

/// Time from sending a Request for `service` until its only endpoint has the first datagram, in milliseconds. The wire
/// is closed again.
pub(crate) fn first_packet_ms(
    node: &Node,
    [client, endpoint]: [&NetNs; 2],
    service: &str,
    id: &str,
) -> Result<f64> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let sink = endpoint.run(|| Ok(UdpSocket::bind(any)?))?;
    sink.set_read_timeout(Some(LOST_AFTER))?;
    let port = sink.local_addr()?.port();
    let source = client.run(|| Ok(UdpSocket::bind(any)?))?;

    let start = Instant::now();
    let wire = node.api().request(id, service, client);
    let wire = wire.with_context(|| format!("connection {id}; the node says: {}", node.log()))?;
    source.send_to(b"first", (wire.endpoint, port))?;
    sink.recv(&mut [0; 16]).context("the first packet was lost")?;
    let elapsed = start.elapsed();

    node.api().close_all(&[wire], 1)?;
    Ok(elapsed.as_secs_f64() * 1e3)
}
