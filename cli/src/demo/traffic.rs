//! Real packets: numbered datagrams that are answered, in both families, for each step; and one TCP transfer through all
//! of them.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;
use tieline_lab::{EchoStream, TcpPlan, TcpReport, TcpTransfer, UdpPlan, slow};

use super::{
    DemoArgs, Interrupted,
    node::Wire,
    stage::{PORT, Stage},
};

const TCP_PORT: u16 = 5001;
/// Octets of each datagram: a packet of an ordinary voice call.
const DATAGRAM: usize = 200;
/// Octets per second of the transfer: enough to be always under way, little enough to leave the machine its rest.
const TCP_RATE: u64 = 8_000_000;
/// How often it is looked whether enough has passed.
const POLL: Duration = Duration::from_millis(2);

/// What became of the datagrams of a step.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Passed {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// The longest time between two answers, in microseconds.
    pub(crate) longest_gap_us: u128,
}

impl Passed {
    /// Each was answered exactly once, in order.
    pub(crate) const fn is_perfect(&self) -> bool {
        self.sent > 0 && self.answered == self.sent && self.lost + self.duplicated + self.reordered == 0
    }
}

/// Datagrams to each address of the gateway.
pub(crate) struct Datagrams(Vec<EchoStream>);

impl Datagrams {
    /// Begins.
    pub(crate) fn start(args: &DemoArgs, stage: &Stage, wire: &Wire) -> Result<Self> {
        let plan = UdpPlan {
            rate: Some(args.rate),
            size: DATAGRAM,
        };
        let start = |far: &IpAddr| EchoStream::start(&stage.laptop, SocketAddr::new(*far, PORT), plan);
        Ok(Self(wire.endpoint.iter().map(start).collect::<Result<_>>()?))
    }

    /// Waits until `count` more of each family are answered.
    pub(crate) fn wait_for(&self, count: u64, interrupted: &Interrupted) -> Result<()> {
        let due = Duration::from_secs(10) + Duration::from_millis(count);
        let (begin, limit) = (Instant::now(), slow(due));
        let before: Vec<u64> = self.0.iter().map(EchoStream::answered).collect();
        let is_through = || {
            self.0
                .iter()
                .zip(&before)
                .all(|(stream, before)| stream.answered() >= before + count)
        };
        while !is_through() {
            interrupted.check()?;
            ensure!(begin.elapsed() < limit, "the datagrams do not get through");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// How many were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.0.iter().map(EchoStream::answered).sum()
    }

    /// Ends, and gives the account.
    pub(crate) fn finish(self) -> Result<Passed> {
        let mut passed = Passed::default();
        for stream in self.0 {
            let report = stream.finish()?.datagrams;
            passed.sent += report.sent;
            passed.answered += report.received;
            passed.lost += report.lost + report.send_errors;
            passed.duplicated += report.duplicated + report.foreign;
            passed.reordered += report.reordered;
            passed.longest_gap_us = passed.longest_gap_us.max(report.longest_gap.as_micros());
        }
        Ok(passed)
    }
}

/// The transfer from the laptop to the gateway that every step has to leave whole.
pub(crate) struct Transfer(TcpTransfer);

impl Transfer {
    /// Begins.
    pub(crate) fn start(stage: &Stage, wire: &Wire) -> Result<Self> {
        let plan = TcpPlan {
            bytes: None,
            rate: Some(TCP_RATE),
        };
        let [far, ..] = wire.endpoint[..] else {
            anyhow::bail!("the gateway has no address");
        };
        let to = SocketAddr::new(far, TCP_PORT);
        Ok(Self(TcpTransfer::start(&stage.laptop, &stage.gateway, to, plan)?))
    }

    /// Ends it. Every octet arrived as it was sent, or there is no report.
    pub(crate) fn finish(self) -> Result<TcpReport> {
        self.0.finish()
    }
}
