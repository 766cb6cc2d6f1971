//! A stream of numbered datagrams, and the exact account of what became of each.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::{NetNs, time::slow};

/// Room for some seconds of a stream while the receiver's thread is not scheduled, in octets.
pub(crate) const BUFFER: usize = 64 * 1024 * 1024;
/// Stream number and datagram number.
pub(crate) const HEADER: usize = 16;

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct UdpPlan {
    /// Datagrams per second, paced by absolute time; `None`: as fast as it goes.
    pub rate: Option<u32>,
    /// Octets of UDP payload, at least 16.
    pub size: usize,
}

impl Default for UdpPlan {
    fn default() -> Self {
        Self {
            rate: Some(1000),
            size: 64,
        }
    }
}

/// A running stream.
#[derive(Debug)]
pub struct UdpStream {
    stop: Arc<AtomicBool>,
    quit: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    account: Arc<Mutex<Account>>,
    sender: Option<JoinHandle<Result<Sent>>>,
    receivers: Vec<JoinHandle<Result<()>>>,
}

/// What the kernel said to the sender.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) datagrams: u64,
    pub(crate) errors: u64,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct UdpReport {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that the kernel refused (no route, no buffer, unreachable).
    pub send_errors: u64,
    /// Different datagrams that arrived.
    pub received: u64,
    /// Datagrams that never arrived.
    pub lost: u64,
    /// Arrivals of a datagram that had arrived before.
    pub duplicated: u64,
    /// Arrivals after a datagram with a higher number.
    pub reordered: u64,
    /// Datagrams that are not of this stream.
    pub foreign: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// From the first arrival to the last.
    pub duration: Duration,
}

impl UdpReport {
    /// Fails unless every datagram arrived exactly once, in order, and nothing else did.
    pub fn assert_in_order(&self) -> Result<()> {
        self.assert_perfect()?;
        ensure!(self.reordered == 0, "the order was not kept: {self:?}");
        Ok(())
    }

    /// Fails unless every datagram arrived exactly once and nothing else did.
    pub fn assert_perfect(&self) -> Result<()> {
        let faults = self.lost + self.duplicated + self.foreign + self.send_errors;
        ensure!(
            self.sent > 0 && faults == 0,
            "the stream was not perfect: {self:?}"
        );
        Ok(())
    }
}

impl UdpStream {
    /// Starts sending from `from` to `to`, an address of `to_netns`.
    pub fn start(from: &NetNs, to_netns: &NetNs, to: SocketAddr, plan: UdpPlan) -> Result<Self> {
        Self::start_to_any(from, &[to_netns], to, plan)
    }

    /// Starts sending from `from` to `to`, an address that one of `to_netns` has, now this one and now that. The order
    /// is known among datagrams that arrive at the same one.
    pub fn start_to_any(from: &NetNs, to_netns: &[&NetNs], to: SocketAddr, plan: UdpPlan) -> Result<Self> {
        ensure!(
            plan.size >= HEADER,
            "a datagram of {} octets cannot hold its number",
            plan.size
        );
        let receive_at = |netns: &&NetNs| netns.run(|| receiver(to));
        let sockets = to_netns.iter().map(receive_at).collect::<Result<Vec<_>>>()?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sender = from.run(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to).with_context(|| format!("send to {to}"))?;
            Ok(socket)
        })?;
        let id = stream_id();
        let (stop, quit) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let received = Arc::new(AtomicU64::new(0));
        let account = Arc::new(Mutex::new(Account::default()));
        let receivers = sockets.into_iter().map(|socket| {
            let (quit, count, account) = (Arc::clone(&quit), Arc::clone(&received), Arc::clone(&account));
            thread::spawn(move || receive(&socket, id, &quit, &count, &account))
        });
        let receivers = receivers.collect();
        let told_to_stop = Arc::clone(&stop);
        Ok(Self {
            receivers,
            account,
            sender: Some(thread::spawn(move || send(&sender, id, plan, &told_to_stop))),
            stop,
            quit,
            received,
        })
    }

    /// How many datagrams have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the stream, waits for what is under way, and gives the account.
    pub fn finish(mut self) -> Result<UdpReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = join(self.sender.take())?;
        let patience = slow(Duration::from_secs(1));
        let (mut last, mut since) = (self.received(), Instant::now());
        while last < sent.datagrams && since.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
            if self.received() != last {
                (last, since) = (self.received(), Instant::now());
            }
        }
        // A duplicate may follow the last datagram.
        thread::sleep(Duration::from_millis(20));
        self.quit.store(true, Ordering::Relaxed);
        for receiver in self.receivers.drain(..) {
            join(Some(receiver))?;
        }
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(account.report(sent))
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.quit.store(true, Ordering::Relaxed);
        let _ = join(self.sender.take());
        for receiver in self.receivers.drain(..) {
            let _ = join(Some(receiver));
        }
    }
}

/// The result of a thread that is still to be joined.
pub(crate) fn join<T: Default>(thread: Option<JoinHandle<Result<T>>>) -> Result<T> {
    let Some(thread) = thread else {
        return Ok(T::default());
    };
    thread.join().map_err(|_| anyhow!("a traffic thread panicked"))?
}

/// Different for each stream of every process, so that no two are mixed up.
pub(crate) fn stream_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Sends numbered datagrams until it is told to stop.
pub(crate) fn send(socket: &UdpSocket, id: u64, plan: UdpPlan, stop: &AtomicBool) -> Result<Sent> {
    let mut datagram = vec![0x5a; plan.size];
    datagram[..8].copy_from_slice(&id.to_be_bytes());
    let begin = Instant::now();
    let mut sent = Sent::default();
    while !stop.load(Ordering::Relaxed) {
        if let Some(rate) = plan.rate {
            // Absolute: a late datagram does not delay the following ones.
            let due =
                begin + Duration::from_secs(1) / rate.max(1) * u32::try_from(sent.datagrams + sent.errors)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        datagram[8..HEADER].copy_from_slice(&sent.datagrams.to_be_bytes());
        match socket.send(&datagram) {
            Ok(_) => sent.datagrams += 1,
            Err(_) => sent.errors += 1,
        }
    }
    Ok(sent)
}

/// A socket that receives at `to`, which an interface may get later.
fn receiver(to: SocketAddr) -> Result<UdpSocket> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let socket = UdpSocket::from(socket);
    setsockopt(&socket.as_fd(), sockopt::IpFreebind, &true)?;
    setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &BUFFER)?;
    bind(socket.as_fd().as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("receive at {to}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    Ok(socket)
}

fn receive(
    socket: &UdpSocket,
    id: u64,
    quit: &AtomicBool,
    count: &AtomicU64,
    account: &Mutex<Account>,
) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !quit.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let now = Instant::now();
                let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
                account.take(id, &buffer[..length], now);
                count.store(account.received, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receive a datagram"),
        }
    }
    Ok(())
}

/// Counts arrivals by number.
#[derive(Debug, Default)]
pub(crate) struct Account {
    seen: Vec<u64>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
    highest: Option<u64>,
    first: Option<Instant>,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Account {
    /// Takes what arrived at `now` at the receiver of stream `id`.
    pub(crate) fn take(&mut self, id: u64, datagram: &[u8], now: Instant) {
        let number = |at: usize| datagram.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let (Some(stream), Some(number)) = (number(0), number(8)) else {
            self.foreign += 1;
            return;
        };
        let (Ok(word), true) = (usize::try_from(number / 64), stream == id) else {
            self.foreign += 1;
            return;
        };
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        self.reordered += u64::from(self.highest.is_some_and(|highest| highest > number));
        self.highest = self.highest.max(Some(number));
        self.first.get_or_insert(now);
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        self.last = Some(now);
    }

    /// Different datagrams so far.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// The account at the end.
    pub(crate) fn report(&self, sent: Sent) -> UdpReport {
        UdpReport {
            sent: sent.datagrams,
            send_errors: sent.errors,
            received: self.received,
            lost: sent.datagrams.saturating_sub(self.received),
            duplicated: self.duplicated,
            reordered: self.reordered,
            foreign: self.foreign,
            longest_gap: self.longest_gap,
            duration: self
                .first
                .zip(self.last)
                .map_or(Duration::ZERO, |(first, last)| last - first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let mut account = Account::default();
        let datagram = |id: u64, n: u64| [id.to_be_bytes(), n.to_be_bytes()].concat();
        let now = Instant::now();
        for (n, at) in [(0, 0), (1, 1), (3, 2), (3, 3), (2, 10)] {
            account.take(9, &datagram(9, n), now + Duration::from_millis(at));
        }
        account.take(9, &datagram(8, 4), now);
        account.take(9, b"short", now);
        let report = account.report(Sent {
            datagrams: 6,
            errors: 1,
        });
        assert_eq!((report.received, report.lost, report.duplicated), (4, 2, 1));
        assert_eq!((report.reordered, report.foreign, report.send_errors), (1, 2, 1));
        assert_eq!(report.longest_gap, Duration::from_millis(8));
        assert!(report.assert_perfect().is_err());
    }

    #[test]
    fn a_stream_over_loopback_is_perfect_and_keeps_its_rate() {
        let netns = NetNs::new("udp").unwrap();
        let to = "127.0.0.1:9000".parse().unwrap();
        let stream = UdpStream::start(&netns, &netns, to, UdpPlan::default()).unwrap();
        thread::sleep(Duration::from_millis(500));
        let report = stream.finish().unwrap();
        report.assert_perfect().unwrap();
        assert!((400..=700).contains(&report.sent), "{report:?}");
    }

    #[test]
    fn datagrams_that_cannot_leave_are_errors_not_losses() {
        let netns = NetNs::new("udpno").unwrap();
        netns
            .net(|net| net.add_address("lo", "10.0.0.1/32".parse()?))
            .unwrap();
        let to = "10.0.0.1:9000".parse().unwrap();
        let stream = UdpStream::start(&netns, &netns, to, UdpPlan::default()).unwrap();
        thread::sleep(Duration::from_millis(100));
        netns.net(|net| net.set_down("lo")).unwrap();
        thread::sleep(Duration::from_millis(100));
        let report = stream.finish().unwrap();
        assert!(report.send_errors > 0 || report.lost > 0, "{report:?}");
        assert!(report.assert_perfect().is_err());
    }
}
