//! Real packets, both ways, each accounted for.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;
use tieline_lab::{NetNs, PingPlan, TcpPlan, TcpTransfer, UdpPlan, UdpStream, ping, slow};

use super::{
    DemoArgs, Interrupted,
    node::Wire,
    report::{Report, short},
    stage::Stage,
};
use crate::output::Row;

const TCP_PORT: u16 = 5001;
const UDP_PORT: u16 = 5002;
/// Octets of each datagram: a packet of an ordinary voice call.
const DATAGRAM: usize = 200;
/// How often it is looked whether a flow has ended.
const POLL: Duration = Duration::from_millis(2);
/// How long a transfer may stand still before its own account of that is asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of one kind of traffic in one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Flow {
    kind: &'static str,
    from: &'static str,
    to: &'static str,
    unit: &'static str,
    sent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    note: String,
}

impl Flow {
    /// Everything that was sent arrived, once.
    pub(crate) const fn is_lossless(&self) -> bool {
        self.sent > 0 && self.received == self.sent && self.lost == 0 && self.duplicated == 0
    }
}

impl Row for Flow {
    const HEADINGS: &'static [&'static str] = &["TRAFFIC", "FROM", "TO", "SENT", "RECEIVED", "LOST", ""];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.to_owned(),
            self.from.to_owned(),
            self.to.to_owned(),
            format!("{} {}", self.sent, self.unit),
            self.received.to_string(),
            self.lost.to_string(),
            self.note.clone(),
        ]
    }
}

/// One direction of the wire.
struct Direction<'a> {
    from: (&'static str, &'a NetNs),
    to: (&'static str, &'a NetNs),
    /// Addresses of the receiver, IPv4 and IPv6.
    targets: &'a [IpAddr],
}

/// All of it: echo, bulk, streams; each in both families and directions.
pub(crate) fn all(
    args: &DemoArgs,
    stage: &Stage,
    wire: &Wire,
    report: &mut Report,
    interrupted: &Interrupted,
) -> Result<Vec<Flow>> {
    let (laptop, gateway) = (("laptop", &stage.laptop), ("gateway", &stage.gateway));
    let directions = [
        Direction {
            from: laptop,
            to: gateway,
            targets: &wire.endpoint,
        },
        Direction {
            from: gateway,
            to: laptop,
            targets: &wire.client,
        },
    ];
    let begin = Instant::now();
    let mut flows = Vec::new();
    for direction in &directions {
        for &target in direction.targets {
            interrupted.check()?;
            flows.push(echo(args, direction, target)?);
        }
    }
    for direction in &directions {
        for &target in direction.targets {
            interrupted.check()?;
            flows.push(bulk(args, direction, target, interrupted)?);
        }
    }
    flows.extend(streams(args, &directions, interrupted)?);
    let what = "ICMP and ICMPv6 echo, TCP bulk transfers, numbered UDP datagrams, both ways";
    report.step("sent", what, Some(begin.elapsed()))?;
    Ok(flows)
}

fn flow(kind: [&'static str; 2], direction: &Direction<'_>, target: IpAddr, unit: &'static str) -> Flow {
    let [v4, v6] = kind;
    Flow {
        kind: if target.is_ipv4() { v4 } else { v6 },
        from: direction.from.0,
        to: direction.to.0,
        unit,
        sent: 0,
        received: 0,
        lost: 0,
        duplicated: 0,
        note: String::new(),
    }
}

fn echo(args: &DemoArgs, direction: &Direction<'_>, target: IpAddr) -> Result<Flow> {
    let plan = PingPlan {
        count: args.pings,
        ..PingPlan::default()
    };
    let report = ping(direction.from.1, target, plan)?;
    let mut times = report.round_trips.clone();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let (sent, received) = (u64::from(report.sent), u64::from(report.received));
    Ok(Flow {
        sent,
        received,
        lost: sent.saturating_sub(received),
        note: format!("round trip {} (median)", short(median)),
        ..flow(["ICMP echo", "ICMPv6 echo"], direction, target, "requests")
    })
}

fn bulk(
    args: &DemoArgs,
    direction: &Direction<'_>,
    target: IpAddr,
    interrupted: &Interrupted,
) -> Result<Flow> {
    let plan = TcpPlan {
        bytes: Some(args.bytes),
        rate: None,
    };
    let to = SocketAddr::new(target, TCP_PORT);
    let transfer = TcpTransfer::start(direction.from.1, direction.to.1, to, plan)?;
    let (mut last, mut since) = (0, Instant::now());
    // Whether it stands still is the transfer's own question at its end; here only the user is listened to.
    while transfer.received() < args.bytes && since.elapsed() < PATIENCE {
        interrupted.check()?;
        std::thread::sleep(POLL);
        if transfer.received() != last {
            (last, since) = (transfer.received(), Instant::now());
        }
    }
    let report = transfer.finish()?;
    Ok(Flow {
        sent: args.bytes,
        received: report.bytes,
        lost: args.bytes.saturating_sub(report.bytes),
        note: format!(
            "{:.1} Gbit/s, {} segments resent",
            report.gigabits_per_second(),
            report.retransmits
        ),
        ..flow(["TCP over IPv4", "TCP over IPv6"], direction, target, "octets")
    })
}

/// All streams at the same time.
fn streams(args: &DemoArgs, directions: &[Direction<'_>; 2], interrupted: &Interrupted) -> Result<Vec<Flow>> {
    let plan = UdpPlan {
        rate: Some(args.rate),
        size: DATAGRAM,
    };
    let mut running = Vec::new();
    for direction in directions {
        for &target in direction.targets {
            let to = SocketAddr::new(target, UDP_PORT);
            let stream = UdpStream::start(direction.from.1, direction.to.1, to, plan)?;
            running.push((
                flow(["UDP over IPv4", "UDP over IPv6"], direction, target, "datagrams"),
                stream,
            ));
        }
    }
    let due = Duration::from_secs_f64(args.datagrams as f64 / f64::from(args.rate));
    let deadline = Instant::now() + due + slow(Duration::from_secs(10));
    while running
        .iter()
        .any(|(_, stream)| stream.received() < args.datagrams)
    {
        interrupted.check()?;
        ensure!(Instant::now() < deadline, "the streams do not get through");
        std::thread::sleep(POLL);
    }
    let finished = running.into_iter().map(|(flow, stream)| {
        let report = stream.finish()?;
        Ok(Flow {
            sent: report.sent,
            received: report.received,
            lost: report.lost,
            duplicated: report.duplicated,
            note: format!("{} per second, {} out of order", args.rate, report.reordered),
            ..flow
        })
    });
    finished.collect()
}
