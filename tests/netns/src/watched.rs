//! A wire under traffic, and what its client noticed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use tieline_lab::{EchoReport, EchoStream, Link, NetNs, ResponderId, UdpPlan, eventually, slow};

use crate::{PORT, Wire};

/// Answers that prove a wire to carry both ways.
const ENOUGH: u64 = 20;
const LIMIT: Duration = Duration::from_secs(10);

/// An interface as its workload sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    /// Index, name, hardware address, MTU, state.
    pub link: Link,
    /// Addresses, without link-local ones.
    pub addresses: Vec<IpNet>,
}

impl Face {
    /// That of `interface` in `netns`.
    pub fn of(netns: &NetNs, interface: &str) -> Result<Self> {
        netns.net(|net| {
            Ok(Self {
                link: net.link(interface)?,
                addresses: net.addresses(interface)?,
            })
        })
    }
}

/// A thousand numbered datagrams a second to each address of the wire's far end, each to be answered.
#[derive(Debug)]
pub struct Watched<'a> {
    client: &'a NetNs,
    interface: String,
    face: Face,
    streams: Vec<(IpAddr, EchoStream)>,
}

/// What became of them.
#[derive(Clone, Debug)]
pub struct Noticed {
    streams: Vec<(IpAddr, EchoReport)>,
}

impl<'a> Watched<'a> {
    /// Begins, and waits for the first answers.
    pub fn start(client: &'a NetNs, wire: &Wire) -> Result<Self> {
        let watched = Self::launch(client, wire)?;
        watched.wait_for_answers("the first answers")?;
        Ok(watched)
    }

    /// Begins, and does not wait.
    pub fn launch(client: &'a NetNs, wire: &Wire) -> Result<Self> {
        let mut streams = Vec::new();
        for far in &wire.endpoint {
            let to = SocketAddr::new(*far, PORT);
            streams.push((*far, EchoStream::start(client, to, UdpPlan::default())?));
        }
        ensure!(!streams.is_empty(), "the wire has no addresses: {wire:?}");
        Ok(Self {
            client,
            interface: wire.client_interface.clone(),
            face: Face::of(client, &wire.client_interface)?,
            streams,
        })
    }

    /// How many datagrams were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.streams.iter().map(|(_, stream)| stream.answered()).sum()
    }

    /// Waits until every stream was answered some times more.
    pub fn wait_for_answers(&self, what: &str) -> Result<()> {
        self.wait_for(ENOUGH, what)
    }

    /// Waits until every stream was answered so many times more.
    pub fn wait_for(&self, count: u64, what: &str) -> Result<()> {
        let before: Vec<u64> = self.streams.iter().map(|(_, stream)| stream.answered()).collect();
        self.wait(what, |number, stream| stream.answered() >= before[number] + count)
    }

    /// Waits until every stream was answered some times more by this one.
    pub fn wait_for_answers_by(&self, responder: ResponderId) -> Result<()> {
        let count = |stream: &EchoStream| stream.answered_by(responder);
        let before: Vec<u64> = self.streams.iter().map(|(_, stream)| count(stream)).collect();
        self.wait("answers of another one", |number, stream| {
            count(stream) >= before[number] + ENOUGH
        })
    }

    fn wait(&self, what: &str, so: impl Fn(usize, &EchoStream) -> bool) -> Result<()> {
        eventually(LIMIT, what, || {
            let mut streams = self.streams.iter().enumerate();
            Ok(streams.all(|(number, (_, stream))| so(number, stream)))
        })
    }

    /// Fails unless the client's interface is the one that it was at the beginning: same index, name, hardware
    /// address, MTU, state and addresses.
    pub fn assert_same_face(&self) -> Result<()> {
        let face = Face::of(self.client, &self.interface)?;
        ensure!(
            face == self.face,
            "the client's interface is {face:?}, was {:?}",
            self.face
        );
        Ok(())
    }

    /// Ends the traffic, and fails unless the client's interface is still the same.
    pub fn finish(self) -> Result<Noticed> {
        self.assert_same_face()?;
        let streams = self.streams.into_iter();
        let streams = streams.map(|(far, stream)| Ok((far, stream.finish()?)));
        Ok(Noticed {
            streams: streams.collect::<Result<_>>()?,
        })
    }
}

impl Noticed {
    /// Fails unless every datagram was answered exactly once, in order.
    pub fn assert_nothing(&self) -> Result<()> {
        for (far, report) in &self.streams {
            report.assert_perfect().with_context(|| format!("to {far}"))?;
        }
        Ok(())
    }

    /// Fails unless there was an outage, one of at most this long, and nothing worse: no duplicate, nothing foreign.
    pub fn assert_outage_of_at_most(&self, most: Duration) -> Result<()> {
        for (far, report) in &self.streams {
            let seen = &report.datagrams;
            ensure!(
                seen.lost + seen.send_errors > 0 && seen.longest_gap <= slow(most),
                "to {far}: not an outage of at most {most:?}: {seen:?}"
            );
            ensure!(
                seen.duplicated + seen.foreign + seen.reordered == 0,
                "to {far}: {seen:?}"
            );
        }
        Ok(())
    }

    /// The longest time without an answer, of all streams.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let gaps = self
            .streams
            .iter()
            .map(|(_, report)| report.datagrams.longest_gap);
        gaps.max().unwrap_or_default()
    }

    /// How many were answered by this one.
    #[must_use]
    pub fn answered_by(&self, responder: ResponderId) -> u64 {
        let answers = self
            .streams
            .iter()
            .map(|(_, report)| report.answered_by(responder));
        answers.sum()
    }

    /// From `moment` to when the last of the streams had its first answer from this one.
    pub fn first_answer_since(&self, moment: Instant, responder: ResponderId) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for (far, report) in &self.streams {
            let first = report.first_by(responder);
            let first = first.with_context(|| format!("to {far}: no answer from the new one: {report:?}"))?;
            longest = longest.max(first.saturating_duration_since(moment));
        }
        Ok(longest)
    }
}
