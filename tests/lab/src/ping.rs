//! ICMP and ICMPv6 echo, without the `ping` program.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv, send,
        setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};

use crate::{NetNs, frame::checksum, time::slow};

/// How to ping.
#[derive(Clone, Copy, Debug)]
pub struct PingPlan {
    /// How many requests.
    pub count: u16,
    /// Octets behind the ICMP header.
    pub size: usize,
    /// Pause between a reply and the next request.
    pub interval: Duration,
    /// How long to wait for each reply; stretched on slow machines.
    pub timeout: Duration,
}

impl Default for PingPlan {
    fn default() -> Self {
        Self {
            count: 3,
            size: 56,
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(1),
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u16,
    /// Requests that the kernel refused to send (no route, unreachable).
    pub refused: u16,
    /// Replies that came in time.
    pub received: u16,
    /// Round trip of each reply.
    pub round_trips: Vec<Duration>,
}

impl PingReport {
    /// Fails unless every request was answered.
    pub fn assert_all_answered(&self) -> Result<()> {
        let (sent, received, refused) = (self.sent, self.received, self.refused);
        ensure!(
            sent > 0 && refused == 0 && sent == received,
            "{sent} pings sent, {received} answered, {refused} refused"
        );
        Ok(())
    }
}

/// Pings `address` from `netns`, one request at a time.
pub fn ping(netns: &NetNs, address: IpAddr, plan: PingPlan) -> Result<PingReport> {
    netns.run(|| ping_here(address, plan).with_context(|| format!("ping {address}")))
}

/// The numbers of one address family.
struct Family {
    socket: AddressFamily,
    protocol: SockProtocol,
    request: u8,
    reply: u8,
    /// A raw IPv4 socket delivers the IP header, a raw IPv6 socket does not.
    with_ip_header: bool,
}

const V4: Family = Family {
    socket: AddressFamily::Inet,
    protocol: SockProtocol::Icmp,
    request: 8,
    reply: 0,
    with_ip_header: true,
};
const V6: Family = Family {
    socket: AddressFamily::Inet6,
    protocol: SockProtocol::IcmpV6,
    request: 128,
    reply: 129,
    with_ip_header: false,
};

fn ping_here(address: IpAddr, plan: PingPlan) -> Result<PingReport> {
    let family = if address.is_ipv4() { V4 } else { V6 };
    let fd = socket(
        family.socket,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        family.protocol,
    )?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(5))?;
    let mut report = PingReport::default();
    if connect(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(address, 0)),
    )
    .is_err()
    {
        (report.sent, report.refused) = (plan.count, plan.count);
        return Ok(report);
    }
    let identifier = u16::try_from(std::process::id() & 0xffff)?;
    let timeout = slow(plan.timeout);
    for sequence in 1..=plan.count {
        let begin = Instant::now();
        report.sent += 1;
        let request = echo(&family, identifier, sequence, plan.size);
        if send(fd.as_raw_fd(), &request, MsgFlags::empty()).is_err() {
            report.refused += 1;
        } else if await_reply(&fd, &family, (identifier, sequence), begin + timeout)? {
            report.received += 1;
            report.round_trips.push(begin.elapsed());
        }
        std::thread::sleep(plan.interval);
    }
    Ok(report)
}

fn echo(family: &Family, identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let numbers = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    let mut message = [&[family.request, 0, 0, 0], numbers.as_slice(), &vec![0xa5; size]].concat();
    if family.with_ip_header {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn await_reply(fd: &OwnedFd, family: &Family, numbers: (u16, u16), deadline: Instant) -> Result<bool> {
    let mut buffer = vec![0; 65_536];
    while Instant::now() < deadline {
        match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if is_reply(family, numbers, &buffer[..length]) => return Ok(true),
            // Another message; the timeout; or an ICMP error for an earlier request.
            Ok(_)
            | Err(
                nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::EHOSTUNREACH | nix::Error::ENETUNREACH,
            ) => {}
            Err(error) => return Err(error).context("receive a reply"),
        }
    }
    Ok(false)
}

fn is_reply(family: &Family, (identifier, sequence): (u16, u16), packet: &[u8]) -> bool {
    let header = if family.with_ip_header {
        packet.first().map_or(0, |first| usize::from(first & 15) * 4)
    } else {
        0
    };
    let expected = [identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
    let Some(message) = packet.get(header..) else {
        return false;
    };
    message.first() == Some(&family.reply) && message.get(4..8) == Some(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_in_both_families() {
        let netns = NetNs::new("ping").unwrap();
        for address in ["127.0.0.1", "::1"] {
            let report = ping(&netns, address.parse().unwrap(), PingPlan::default()).unwrap();
            report.assert_all_answered().unwrap();
            assert_eq!(report.round_trips.len(), 3);
        }
    }

    #[test]
    fn silence_and_refusal_are_not_answers() {
        let netns = NetNs::new("pingno").unwrap();
        netns.net(|net| net.add_bridge("hole")).unwrap();
        netns
            .net(|net| {
                net.add_address("hole", "10.0.0.1/24".parse()?)?;
                net.set_up("hole")
            })
            .unwrap();
        let plan = PingPlan {
            count: 1,
            timeout: Duration::from_millis(50),
            ..PingPlan::default()
        };
        let silent = ping(&netns, "10.0.0.2".parse().unwrap(), plan).unwrap();
        assert_eq!((silent.sent, silent.received), (1, 0));
        let refused = ping(&netns, "192.0.2.1".parse().unwrap(), plan).unwrap();
        assert_eq!((refused.refused, refused.received), (1, 0));
        assert!(refused.assert_all_answered().is_err());
    }
}
