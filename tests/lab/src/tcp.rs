//! A bulk transfer whose every octet is checked.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{NetNs, sys, time::slow};

/// The content repeats after a number of octets that no buffer size divides (a prime).
const PATTERN: usize = 65_521;

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub struct TcpPlan {
    /// Octets to send; `None`: until it is told to finish.
    pub bytes: Option<u64>,
    /// Octets per second at most; `None`: as fast as it goes.
    pub rate: Option<u64>,
}

/// A running transfer over one connection.
#[derive(Debug)]
pub struct TcpTransfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    handle: TcpStream,
    sender: Option<JoinHandle<Result<(u64, u32)>>>,
    receiver: Option<JoinHandle<Result<Received>>>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: u64,
    longest_stall: Duration,
    duration: Duration,
}

/// What became of a transfer. The content was right, or there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TcpReport {
    /// Octets sent, and received.
    pub bytes: u64,
    /// From the first octet received to the last.
    pub duration: Duration,
    /// The longest time between two reads.
    pub longest_stall: Duration,
    /// Segments that were sent again.
    pub retransmits: u32,
}

impl TcpReport {
    /// Goodput in Gbit/s.
    #[must_use]
    pub fn gigabits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let bits = self.bytes as f64 * 8.0;
        bits / self.duration.as_secs_f64().max(f64::EPSILON) / 1e9
    }
}

impl TcpTransfer {
    /// Connects from `from` to `to`, an address of `to_netns`, and begins.
    pub fn start(from: &NetNs, to_netns: &NetNs, to: SocketAddr, plan: TcpPlan) -> Result<Self> {
        let listener = to_netns.run(|| TcpListener::bind(to).with_context(|| format!("listen at {to}")))?;
        let limit = slow(Duration::from_secs(10));
        let client =
            from.run(|| TcpStream::connect_timeout(&to, limit).with_context(|| format!("connect to {to}")))?;
        let (server, _) = listener.accept()?;
        let handle = client.try_clone()?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told_to_stop, count) = (Arc::clone(&stop), Arc::clone(&received));
        Ok(Self {
            sender: Some(thread::spawn(move || send(client, plan, &told_to_stop))),
            receiver: Some(thread::spawn(move || receive(server, &count))),
            stop,
            received,
            handle,
        })
    }

    /// How many octets have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends an endless transfer and waits for a bounded one; fails when octets are missing or wrong, or when
    /// nothing arrives for 30 seconds.
    pub fn finish(mut self) -> Result<TcpReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.wait_while_it_moves(slow(Duration::from_secs(30)))?;
        let (sent, retransmits) = join(self.sender.take())?;
        let received = join(self.receiver.take())?;
        ensure!(
            sent == received.bytes,
            "sent {sent} octets, received {}",
            received.bytes
        );
        Ok(TcpReport {
            bytes: sent,
            duration: received.duration,
            longest_stall: received.longest_stall,
            retransmits,
        })
    }

    fn wait_while_it_moves(&self, patience: Duration) -> Result<()> {
        let done = |thread: &Option<JoinHandle<_>>| thread.as_ref().is_none_or(JoinHandle::is_finished);
        let (mut last, mut since) = (self.received(), Instant::now());
        while !done(&self.receiver) {
            thread::sleep(Duration::from_millis(2));
            if self.received() != last {
                (last, since) = (self.received(), Instant::now());
            }
            ensure!(
                since.elapsed() < patience,
                "the transfer stands still after {last} octets"
            );
        }
        Ok(())
    }
}

impl Drop for TcpTransfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes both threads if they wait.
        let _ = self.handle.shutdown(Shutdown::Both);
        let _ = self.sender.take().map(JoinHandle::join);
        if let Some(receiver) = self.receiver.take()
            && receiver.is_finished()
        {
            let _ = receiver.join();
        }
    }
}

fn join<T>(thread: Option<JoinHandle<Result<T>>>) -> Result<T> {
    let thread = thread.context("the transfer was finished before")?;
    thread.join().map_err(|_| anyhow!("a traffic thread panicked"))?
}

/// Two periods of the content, so that a chunk can begin anywhere in the first one.
fn pattern() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut period = Vec::with_capacity(2 * PATTERN);
    while period.len() < PATTERN {
        // xorshift32 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        period.push(state.to_be_bytes()[0]);
    }
    period.extend_from_within(..);
    period
}

fn at(position: u64) -> usize {
    usize::try_from(position % PATTERN as u64).unwrap_or(0)
}

fn send(mut stream: TcpStream, plan: TcpPlan, stop: &AtomicBool) -> Result<(u64, u32)> {
    let content = pattern();
    let begin = Instant::now();
    let mut sent = 0u64;
    loop {
        let left = plan.bytes.map_or(u64::MAX, |bytes| bytes - sent);
        if left == 0 || (plan.bytes.is_none() && stop.load(Ordering::Relaxed)) {
            break;
        }
        if let Some(rate) = plan.rate {
            let due = begin + Duration::from_micros(sent.saturating_mul(1_000_000) / rate.max(1));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let from = at(sent);
        // A paced transfer sends small pieces, so that it moves all the time.
        let most = if plan.rate.is_some() { 8192 } else { PATTERN };
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(most)
            .min(content.len() - from);
        let length = stream.write(&content[from..from + length]).context("send")?;
        sent += length as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    // The other side closes when it has read everything.
    let _ = stream.read(&mut [0]);
    Ok((sent, sys::tcp_retransmits(stream.as_fd())?))
}

fn receive(mut stream: TcpStream, count: &AtomicU64) -> Result<Received> {
    let content = pattern();
    let mut buffer = vec![0; PATTERN];
    let mut result = Received::default();
    let mut times: Option<(Instant, Instant)> = None;
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("receive"),
        };
        let from = at(result.bytes);
        let right = content.get(from..from + length) == Some(&buffer[..length]);
        ensure!(right, "wrong content behind octet {}", result.bytes);
        result.bytes += length as u64;
        count.store(result.bytes, Ordering::Relaxed);
        let now = Instant::now();
        let (first, last) = times.unwrap_or((now, now));
        result.longest_stall = result.longest_stall.max(now - last);
        times = Some((first, now));
    }
    result.duration = times.map_or(Duration::ZERO, |(first, last)| last - first);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_transfer_arrives_whole() {
        let netns = NetNs::new("tcp").unwrap();
        let plan = TcpPlan {
            bytes: Some(30_000_001),
            rate: None,
        };
        let transfer = TcpTransfer::start(&netns, &netns, "127.0.0.1:9001".parse().unwrap(), plan).unwrap();
        let report = transfer.finish().unwrap();
        assert_eq!(report.bytes, 30_000_001);
        assert!(report.gigabits_per_second() > 0.0);
    }

    #[test]
    fn an_endless_transfer_ends_when_told_and_keeps_its_rate() {
        let netns = NetNs::new("tcpend").unwrap();
        let plan = TcpPlan {
            bytes: None,
            rate: Some(4_000_000),
        };
        let transfer = TcpTransfer::start(&netns, &netns, "[::1]:9001".parse().unwrap(), plan).unwrap();
        thread::sleep(Duration::from_millis(500));
        let report = transfer.finish().unwrap();
        assert!((1_000_000..=4_000_000).contains(&report.bytes), "{report:?}");
    }

    #[test]
    fn wrong_content_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut content = pattern()[..1000].to_vec();
        content[999] ^= 1;
        client.write_all(&content).unwrap();
        drop(client);
        let error = receive(server, &AtomicU64::new(0)).unwrap_err();
        assert!(error.to_string().contains("wrong content"), "{error}");
    }
}
