//! Round trips and packet rate over UDP.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg},
};

use super::{LOST_AFTER, both_ends, udp_socket};
use crate::{cpu::Cpu, path::Path, stats, stop};

const PING_OCTETS: usize = 64;
/// A datagram shorter than any ping ends the echo.
const END: &[u8] = b"end";
const PAYLOAD_OCTETS: usize = 18;
/// Datagrams per system call.
const BURST: usize = 64;
/// Pairs of sockets. With one pair alone, sender and sink fight for the lock of one queue, and that is what would be
/// measured.
const FLOWS: usize = 8;

pub(super) fn rtt_p50(path: &Path, round_trips: usize) -> Result<f64> {
    let (client, server) = (udp_socket(&path.client)?, udp_socket(&path.server)?);
    client.connect(server.local_addr()?)?;
    let ping = || {
        let times = ping_pong(&client, round_trips);
        client.send(END)?;
        times
    };
    let (times, ()) = both_ends((Cpu::First, ping), (Cpu::First, || echo(&server)))?;
    stats::median(&times).context("no round trip was measured")
}

fn ping_pong(client: &UdpSocket, round_trips: usize) -> Result<Vec<f64>> {
    let (ping, mut pong) = ([0x55; PING_OCTETS], [0; PING_OCTETS]);
    let mut times = Vec::with_capacity(round_trips);
    let warm_up = round_trips / 10;
    for i in 0..round_trips + warm_up {
        let start = Instant::now();
        client.send(&ping)?;
        client
            .recv(&mut pong)
            .with_context(|| format!("no answer to ping {i} in {LOST_AFTER:?}"))?;
        if i >= warm_up {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    stop::check()?;
    Ok(times)
}

fn echo(server: &UdpSocket) -> Result<()> {
    let mut datagram = [0; PING_OCTETS];
    loop {
        let (len, from) = server
            .recv_from(&mut datagram)
            .context("the echo heard nothing")?;
        if len == END.len() {
            return Ok(());
        }
        server.send_to(&datagram[..len], from)?;
    }
}

pub(super) fn packets_per_second(path: &Path, window: Duration) -> Result<f64> {
    let pairs = (0..FLOWS).map(|_| flow(path)).collect::<Result<Vec<_>>>()?;
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let done = AtomicBool::new(false);
    let send = || {
        let elapsed = flood(&clients, window);
        done.store(true, Ordering::Release);
        elapsed
    };
    let (elapsed, delivered) = both_ends((Cpu::First, send), (Cpu::Second, || drain(&servers, &done)))?;
    stop::check()?;
    Ok(delivered as f64 / elapsed.as_secs_f64())
}

/// A connected socket and the one that it sends to.
fn flow(path: &Path) -> Result<(UdpSocket, UdpSocket)> {
    let (client, server) = (udp_socket(&path.client)?, udp_socket(&path.server)?);
    client.connect(server.local_addr()?)?;
    Ok((client, server))
}

/// Sends for `window`, a burst on each socket in turn; returns how long it really was.
fn flood(clients: &[UdpSocket], window: Duration) -> Result<Duration> {
    const NO_CONTROL: [ControlMessage<'_>; 0] = [];
    const CONNECTED: [Option<SockaddrIn>; BURST] = [None; BURST];
    let payload = [0x55; PAYLOAD_OCTETS];
    let messages = [[IoSlice::new(&payload)]; BURST];
    let mut headers = MultiHeaders::preallocate(BURST, None);
    let start = Instant::now();
    for client in clients.iter().cycle() {
        if start.elapsed() >= window {
            break;
        }
        let client = client.as_raw_fd();
        match sendmmsg(
            client,
            &mut headers,
            &messages,
            CONNECTED,
            NO_CONTROL,
            MsgFlags::empty(),
        ) {
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(error) => return Err(error).context("send"),
        }
    }
    Ok(start.elapsed())
}

/// Takes datagrams without ever sleeping until the sender is done and nothing is left; returns how many.
fn drain(servers: &[UdpSocket], done: &AtomicBool) -> Result<u64> {
    let mut buffers = [[0_u8; PAYLOAD_OCTETS]; BURST];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
    let mut delivered = 0;
    loop {
        let sender_was_done = done.load(Ordering::Acquire);
        let before = delivered;
        for server in servers {
            let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            match recvmmsg(
                server.as_raw_fd(),
                &mut headers,
                &mut slices,
                MsgFlags::MSG_DONTWAIT,
                None,
            ) {
                Ok(messages) => delivered += messages.count() as u64,
                Err(Errno::EAGAIN) => {}
                Err(error) => return Err(io::Error::from(error)).context("receive"),
            }
        }
        if sender_was_done && delivered == before {
            return Ok(delivered);
        }
    }
}
