//! A stream of numbered datagrams that are answered, by whoever they are led to, and the exact account of the answers:
//! how many, in which order, from whom, and since when.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    NetNs, UdpPlan, UdpReport,
    time::slow,
    udp::{Account, BUFFER, HEADER, Sent, join, send, stream_id},
};

/// Behind the datagram's number: that of the responder, in its answer.
const ANSWER: usize = HEADER + 8;
/// How often a thread that waits for datagrams looks whether it shall end.
const LOOK: Duration = Duration::from_millis(10);

/// Tells responders apart, also after their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResponderId(u64);

/// Answers every datagram at one port of a namespace, whatever its address there, until it is dropped.
#[derive(Debug)]
pub struct Responder {
    id: ResponderId,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Responder {
    /// Answers in `netns` at `port`, in both address families.
    pub fn start(netns: &NetNs, port: u16) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let socket = netns.run(|| {
            let socket = UdpSocket::bind(("::", port)).with_context(|| format!("answer at port {port}"))?;
            setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &BUFFER)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        })?;
        let id = ResponderId(NEXT.fetch_add(1, Ordering::Relaxed));
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || answer(&socket, id, &told));
        Ok(Self {
            id,
            stop,
            thread: Some(thread),
        })
    }

    /// What its answers are known by.
    #[must_use]
    pub const fn id(&self) -> ResponderId {
        self.id
    }

    /// Answers nothing from this moment on, as a process that was killed; the socket, which holds the namespace, is
    /// closed when this returns.
    pub fn die(mut self) -> Instant {
        self.end()
    }

    fn end(&mut self) -> Instant {
        self.stop.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let _ = self.thread.take().map(JoinHandle::join);
        now
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.end();
    }
}

fn answer(socket: &UdpSocket, id: ResponderId, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let received = socket.recv_from(&mut buffer);
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        match received {
            Ok((length, from)) if length >= ANSWER => {
                buffer[HEADER..ANSWER].copy_from_slice(&id.0.to_be_bytes());
                // An answer that cannot leave is one that the asker misses.
                let _ = socket.send_to(&buffer[..length], from);
            }
            Ok(_) => {}
            // An ICMP error about an earlier answer is no fault of this one.
            Err(error) if passes(&error) => {}
            Err(error) => return Err(error).context("wait for a datagram"),
        }
    }
}

fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | TimedOut | ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

/// A running stream.
#[derive(Debug)]
pub struct EchoStream {
    stop: Arc<AtomicBool>,
    quit: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
    sender: Option<JoinHandle<Result<Sent>>>,
    receiver: Option<JoinHandle<Result<()>>>,
}

/// What came back.
#[derive(Debug, Default)]
struct Answers {
    account: Account,
    by: BTreeMap<ResponderId, By>,
}

/// What came back from one responder.
#[derive(Clone, Copy, Debug)]
struct By {
    count: u64,
    first: Instant,
    last: Instant,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct EchoReport {
    /// The datagrams; `received` are those that were answered.
    pub datagrams: UdpReport,
    by: BTreeMap<ResponderId, By>,
}

impl EchoReport {
    /// Fails unless every datagram was answered exactly once, in order.
    pub fn assert_perfect(&self) -> Result<()> {
        self.datagrams.assert_perfect()?;
        ensure!(
            self.datagrams.reordered == 0,
            "not in order: {:?}",
            self.datagrams
        );
        Ok(())
    }

    /// How many `responder` answered.
    #[must_use]
    pub fn answered_by(&self, responder: ResponderId) -> u64 {
        self.by.get(&responder).map_or(0, |by| by.count)
    }

    /// When the first answer of `responder` came.
    #[must_use]
    pub fn first_by(&self, responder: ResponderId) -> Option<Instant> {
        Some(self.by.get(&responder)?.first)
    }

    /// When the last answer of `responder` came.
    #[must_use]
    pub fn last_by(&self, responder: ResponderId) -> Option<Instant> {
        Some(self.by.get(&responder)?.last)
    }
}

impl EchoStream {
    /// Starts sending from `from` to `to`, where a [`Responder`] should be.
    pub fn start(from: &NetNs, to: SocketAddr, plan: UdpPlan) -> Result<Self> {
        ensure!(
            plan.size >= ANSWER,
            "a datagram of {} octets cannot hold its number and the responder's",
            plan.size
        );
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = from.run(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to).with_context(|| format!("send to {to}"))?;
            setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &BUFFER)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        })?;
        let (id, receiver) = (stream_id(), socket.try_clone()?);
        let (stop, quit) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let answers = Arc::new(Mutex::new(Answers::default()));
        let (told_to_stop, told_to_quit, shared) =
            (Arc::clone(&stop), Arc::clone(&quit), Arc::clone(&answers));
        Ok(Self {
            receiver: Some(thread::spawn(move || {
                collect(&receiver, id, &told_to_quit, &shared)
            })),
            sender: Some(thread::spawn(move || send(&socket, id, plan, &told_to_stop))),
            stop,
            quit,
            answers,
        })
    }

    /// How many were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        lock(&self.answers).account.received()
    }

    /// How many `responder` answered so far.
    #[must_use]
    pub fn answered_by(&self, responder: ResponderId) -> u64 {
        lock(&self.answers).by.get(&responder).map_or(0, |by| by.count)
    }

    /// Ends the stream, waits for the answers that are under way, and gives the account.
    pub fn finish(mut self) -> Result<EchoReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = join(self.sender.take())?;
        let patience = slow(Duration::from_millis(500));
        let (mut last, mut since) = (self.answered(), Instant::now());
        while last < sent.datagrams && since.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
            if self.answered() != last {
                (last, since) = (self.answered(), Instant::now());
            }
        }
        // A duplicate may follow the last answer.
        thread::sleep(Duration::from_millis(20));
        self.quit.store(true, Ordering::Relaxed);
        join(self.receiver.take())?;
        let answers = std::mem::take(&mut *lock(&self.answers));
        Ok(EchoReport {
            datagrams: answers.account.report(sent),
            by: answers.by,
        })
    }
}

impl Drop for EchoStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.quit.store(true, Ordering::Relaxed);
        let _ = join(self.sender.take());
        let _ = join(self.receiver.take());
    }
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(socket: &UdpSocket, id: u64, quit: &AtomicBool, shared: &Mutex<Answers>) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !quit.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => lock(shared).take(id, &buffer[..length], Instant::now()),
            Err(error) if passes(&error) => {}
            Err(error) => return Err(error).context("wait for an answer"),
        }
    }
    Ok(())
}

impl Answers {
    fn take(&mut self, id: u64, datagram: &[u8], now: Instant) {
        let before = self.account.received();
        self.account.take(id, datagram, now);
        let number = datagram
            .get(HEADER..ANSWER)
            .and_then(|octets| octets.try_into().ok());
        let (Some(id), true) = (
            number.map(|octets| ResponderId(u64::from_be_bytes(octets))),
            self.account.received() > before,
        ) else {
            return;
        };
        let by = self.by.entry(id).or_insert(By {
            count: 0,
            first: now,
            last: now,
        });
        by.count += 1;
        by.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 9002;

    fn stage() -> NetNs {
        NetNs::new("echo").unwrap()
    }

    #[test]
    fn every_datagram_is_answered_in_both_families() {
        let netns = stage();
        let responder = Responder::start(&netns, PORT).unwrap();
        let streams = ["127.0.0.1:9002", "[::1]:9002"]
            .map(|to| EchoStream::start(&netns, to.parse().unwrap(), UdpPlan::default()).unwrap());
        thread::sleep(Duration::from_millis(200));
        for stream in streams {
            let report = stream.finish().unwrap();
            report.assert_perfect().unwrap();
            assert_eq!(report.answered_by(responder.id()), report.datagrams.sent);
        }
    }

    #[test]
    fn the_answers_of_two_responders_are_told_apart_and_the_outage_between_them_is_measured() {
        let netns = stage();
        let to = "127.0.0.1:9002".parse().unwrap();
        let first = Responder::start(&netns, PORT).unwrap();
        let stream = EchoStream::start(&netns, to, UdpPlan::default()).unwrap();
        thread::sleep(Duration::from_millis(100));
        let early = stream.answered_by(first.id());
        let death = first.die();
        thread::sleep(Duration::from_millis(100));
        let second = Responder::start(&netns, PORT).unwrap();
        thread::sleep(Duration::from_millis(100));
        let report = stream.finish().unwrap();
        assert!(early > 0 && report.answered_by(second.id()) > 0, "{report:?}");
        let outage = report.first_by(second.id()).unwrap() - death;
        assert!(outage >= Duration::from_millis(100), "{outage:?}");
        assert!(
            report.datagrams.longest_gap >= Duration::from_millis(95),
            "{report:?}"
        );
        assert!(
            report.datagrams.lost + report.datagrams.send_errors > 0,
            "{report:?}"
        );
        assert!(report.assert_perfect().is_err());
    }

    #[test]
    fn without_a_responder_nothing_is_answered() {
        let netns = stage();
        let to = "127.0.0.1:9002".parse().unwrap();
        let stream = EchoStream::start(&netns, to, UdpPlan::default()).unwrap();
        thread::sleep(Duration::from_millis(50));
        let report = stream.finish().unwrap();
        assert_eq!(report.datagrams.received, 0);
        assert!(report.datagrams.lost + report.datagrams.send_errors > 0);
    }
}
