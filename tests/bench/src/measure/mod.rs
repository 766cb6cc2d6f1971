//! The measurements: each takes a path and a length and gives one number. Generator and sink are the same for
//! every path.

mod frames;
mod tcp;
mod udp;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    cpu::{self, Cpu},
    path::{End, Path},
};

pub(crate) use frames::FrameMeter;

/// How long each measurement takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Live frames for one cost sample, in chunks.
    pub frame_chunks: u32,
    /// Round trips for one median.
    pub round_trips: usize,
    /// Length of a throughput or rate measurement.
    pub window: Duration,
}

impl Effort {
    /// Numbers to keep.
    pub(crate) const FULL: Self = Self {
        frame_chunks: 7,
        round_trips: 10_000,
        window: Duration::from_millis(300),
    };
    /// Enough to see that everything works.
    pub(crate) const QUICK: Self = Self {
        frame_chunks: 3,
        round_trips: 500,
        window: Duration::from_millis(100),
    };
}

/// Nothing on a path takes this long unless it is broken.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Median round trip of a UDP ping-pong with both ends blocking on one processor, in microseconds.
pub(crate) fn rtt_p50(path: &Path, effort: Effort) -> Result<f64> {
    udp::rtt_p50(path, effort.round_trips)
}

/// Delivered UDP datagrams per second: 18 octets of payload, sender and sink on a processor each.
pub(crate) fn udp_pps(path: &Path, effort: Effort) -> Result<f64> {
    udp::packets_per_second(path, effort.window)
}

/// Throughput of one TCP stream in Gbit/s, sender and receiver on a processor each.
pub(crate) fn tcp_gbps(path: &Path, effort: Effort) -> Result<f64> {
    tcp::gbps(path, effort.window)
}

/// TCP connections per second, each with one request and one response, both ends on one processor.
pub(crate) fn crr(path: &Path, effort: Effort) -> Result<f64> {
    tcp::connections_per_second(path, effort.window)
}

/// Fails if the path does not carry packets both ways.
pub(crate) fn check(path: &Path) -> Result<()> {
    udp::rtt_p50(path, 10)
        .map(drop)
        .with_context(|| format!("path {} does not carry packets", path.name))
}

/// Runs the two ends of a measurement, each in a thread of its own that claims its processor first.
fn both_ends<C: Send, S: Send>(
    (client_cpu, client): (Cpu, impl FnOnce() -> Result<C> + Send),
    (server_cpu, server): (Cpu, impl FnOnce() -> Result<S> + Send),
) -> Result<(C, S)> {
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            cpu::claim(server_cpu)?;
            server()
        });
        let client = scope.spawn(move || {
            cpu::claim(client_cpu)?;
            client()
        });
        let outcome =
            |joined: thread::Result<_>| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let client = client
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let server = outcome(server.join());
        Ok((client.context("client")?, server.context("server")?))
    })
}

/// A socket in the end's namespace, on a free port of its address.
fn udp_socket(end: &End) -> Result<UdpSocket> {
    let socket = end.netns.run(|| Ok(UdpSocket::bind(any_port(end.address))?))?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    Ok(socket)
}

fn any_port(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, 0))
}
