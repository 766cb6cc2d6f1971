//! Throughput of one stream, and connect-request-response-close.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use super::{LOST_AFTER, any_port, both_ends};
use crate::{
    cpu::Cpu,
    path::{End, Path},
    stop,
};

const WRITE_OCTETS: usize = 128 * 1024;
const READ_OCTETS: usize = 256 * 1024;
const REQUEST: [u8; 64] = [0x55; 64];
/// A request that ends the server instead of being answered.
const LAST_REQUEST: [u8; 64] = [0xaa; 64];

pub(super) fn gbps(path: &Path, window: Duration) -> Result<f64> {
    let listener = listen(&path.server)?;
    let to = listener.local_addr()?;
    let send = || {
        let mut stream = connect(&path.client, to)?;
        let buffer = vec![0x55; WRITE_OCTETS];
        let start = Instant::now();
        while start.elapsed() < window {
            stream.write_all(&buffer)?;
        }
        Ok(())
    };
    let ((), rate) = both_ends((Cpu::First, send), (Cpu::Second, || receive(&listener)))?;
    stop::check()?;
    Ok(rate)
}

/// Reads one stream to its end; Gbit/s from its first octet on.
fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept().context("nobody connected")?;
    stream.set_read_timeout(Some(LOST_AFTER))?;
    let mut buffer = vec![0; READ_OCTETS];
    let mut octets = stream.read(&mut buffer)?;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer).context("the stream stalled")? {
            0 => break,
            n => octets += n,
        }
    }
    Ok(octets as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
}

/// Each call listens on a port of its own, so that connections of earlier rounds in TIME_WAIT take no port away.
pub(super) fn connections_per_second(path: &Path, window: Duration) -> Result<f64> {
    let listener = listen(&path.server)?;
    let to = listener.local_addr()?;
    // The namespace is that of the thread which opens the sockets.
    let ask = || path.client.netns.run(|| ask_repeatedly(to, window));
    let (rate, ()) = both_ends((Cpu::First, ask), (Cpu::First, || answer_repeatedly(&listener)))?;
    stop::check()?;
    Ok(rate)
}

fn ask_repeatedly(to: SocketAddr, window: Duration) -> Result<f64> {
    crate::cpu::claim(Cpu::First)?;
    let mut answer = [0; REQUEST.len()];
    let mut connections = 0_u32;
    let start = Instant::now();
    while start.elapsed() < window {
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(&REQUEST)?;
        stream.read_exact(&mut answer).context("no answer")?;
        connections += 1;
    }
    let elapsed = start.elapsed();
    TcpStream::connect(to)?.write_all(&LAST_REQUEST)?;
    Ok(f64::from(connections) / elapsed.as_secs_f64())
}

fn answer_repeatedly(listener: &TcpListener) -> Result<()> {
    let mut request = [0; REQUEST.len()];
    loop {
        let (mut stream, _) = listener.accept().context("nobody connected")?;
        stream.read_exact(&mut request)?;
        if request == LAST_REQUEST {
            return Ok(());
        }
        stream.write_all(&REQUEST)?;
        // The client closes first.
        while stream.read(&mut request)? > 0 {}
    }
}

/// Listens on a free port of the end's address; `accept` gives up instead of waiting for ever.
fn listen(end: &End) -> Result<TcpListener> {
    let listener = end.netns.run(|| Ok(TcpListener::bind(any_port(end.address))?))?;
    setsockopt(
        &listener,
        ReceiveTimeout,
        &TimeVal::new(LOST_AFTER.as_secs().cast_signed(), 0),
    )?;
    Ok(listener)
}

fn connect(from: &End, to: SocketAddr) -> Result<TcpStream> {
    let stream = from
        .netns
        .run(|| TcpStream::connect_timeout(&to, LOST_AFTER).context("connect"))?;
    stream.set_write_timeout(Some(LOST_AFTER))?;
    Ok(stream)
}
