//! Four witnesses for each direction: the sender's IP layer, the sender's interface, Tieline's counters in the kernel
//! and the receiver's interface. They are independent of one another, and must agree to the octet.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tieline_lab::{NetNs, within};

use super::{
    node::{Node, Wire},
    stage::Stage,
};
use crate::output::Row;

/// Frames and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) frames: u64,
    pub(crate) octets: u64,
}

impl Count {
    const fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.wrapping_sub(before.frames),
            octets: self.octets.wrapping_sub(before.octets),
        }
    }

    fn cell(self) -> String {
        format!("{} / {}", self.frames, self.octets)
    }
}

/// What was seen of one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Account {
    direction: String,
    /// Packets that the sender's IP layer sent, both families.
    ip_packets: u64,
    sent: Count,
    kernel: Count,
    received: Count,
}

impl Account {
    /// All witnesses say the same.
    pub(crate) fn agrees(&self) -> bool {
        self.kernel.frames > 0
            && self.sent == self.kernel
            && self.kernel == self.received
            && self.ip_packets == self.kernel.frames
    }
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "DIRECTION",
        "IP PACKETS SENT",
        "LEFT THE SENDER",
        "COUNTED BY THE WIRE",
        "REACHED THE RECEIVER",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.direction.clone(),
            self.ip_packets.to_string(),
            self.sent.cell(),
            self.kernel.cell(),
            self.received.cell(),
        ]
    }
}

/// All counters at one quiet moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    laptop: Workload,
    gateway: Workload,
    from_client: Count,
    from_endpoint: Count,
}

/// The kernel's own statistics of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Workload {
    ip_sent: u64,
    transmitted: Count,
    received: Count,
}

/// How long to wait for a moment without packets: the last acknowledgements, a router solicitation.
const QUIET_LIMIT: Duration = Duration::from_secs(10);

/// Reads everything at a moment when no packet is under way: the workloads' counters are the same before and after.
pub(crate) fn read(stage: &Stage, node: &Node<'_>, wire: &Wire) -> Result<Reading> {
    within(QUIET_LIMIT, "a moment without packets", || {
        let before = workloads(stage, wire)?;
        let counts = node.counts(&wire.id)?;
        let endpoint = counts.endpoint()?;
        let quiet = before == workloads(stage, wire)?;
        Ok(quiet.then_some(Reading {
            laptop: before.0,
            gateway: before.1,
            from_client: Count {
                frames: counts.client.packets,
                octets: counts.client.bytes,
            },
            from_endpoint: Count {
                frames: endpoint.packets,
                octets: endpoint.bytes,
            },
        }))
    })
}

/// What each direction carried between two readings.
pub(crate) fn compare(before: Reading, after: Reading) -> [Account; 2] {
    [
        Account {
            direction: "laptop → gateway".to_owned(),
            ip_packets: after.laptop.ip_sent.wrapping_sub(before.laptop.ip_sent),
            sent: after.laptop.transmitted.since(before.laptop.transmitted),
            kernel: after.from_client.since(before.from_client),
            received: after.gateway.received.since(before.gateway.received),
        },
        Account {
            direction: "gateway → laptop".to_owned(),
            ip_packets: after.gateway.ip_sent.wrapping_sub(before.gateway.ip_sent),
            sent: after.gateway.transmitted.since(before.gateway.transmitted),
            kernel: after.from_endpoint.since(before.from_endpoint),
            received: after.laptop.received.since(before.laptop.received),
        },
    ]
}

fn workloads(stage: &Stage, wire: &Wire) -> Result<(Workload, Workload)> {
    Ok((
        workload(&stage.laptop, &wire.client_interface)?,
        workload(&stage.gateway, &wire.endpoint_interface)?,
    ))
}

fn workload(netns: &NetNs, interface: &str) -> Result<Workload> {
    netns.run(|| {
        // The thread's own: `/proc/net` is the namespace of the process's first thread.
        let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let (received, transmitted) = interface_counts(&file("dev")?, interface)?;
        let ip_sent = ipv4_sent(&file("snmp")?)? + ipv6_sent(&file("snmp6")?)?;
        Ok(Workload {
            ip_sent,
            transmitted,
            received,
        })
    })
}

/// Received and transmitted counts of an interface in `/proc/net/dev`.
fn interface_counts(text: &str, interface: &str) -> Result<(Count, Count)> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let numbers = line
        .with_context(|| format!("no interface {interface} in /proc/net/dev"))?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()?;
    let [rx_octets, rx_frames, _, _, _, _, _, _, tx_octets, tx_frames, ..] = numbers[..] else {
        bail!("/proc/net/dev has {} columns", numbers.len());
    };
    Ok((
        Count {
            frames: rx_frames,
            octets: rx_octets,
        },
        Count {
            frames: tx_frames,
            octets: tx_octets,
        },
    ))
}

/// `OutRequests` of the line pair `Ip:` in `/proc/net/snmp`.
fn ipv4_sent(text: &str) -> Result<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(name, _)| *name == "OutRequests")
        .context("no OutRequests in /proc/net/snmp")?;
    Ok(value.parse()?)
}

/// `Ip6OutRequests` in `/proc/net/snmp6`.
fn ipv6_sent(text: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("Ip6OutRequests"));
    Ok(value
        .context("no Ip6OutRequests in /proc/net/snmp6")?
        .trim()
        .parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                   nsm-10: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n nsm-1: 100 7 0 0 0 0 0 0 200 9 0 0 0 0 0 0\n";
        let (received, transmitted) = interface_counts(dev, "nsm-1").unwrap();
        assert_eq!(
            (received, transmitted),
            (
                Count {
                    frames: 7,
                    octets: 100
                },
                Count {
                    frames: 9,
                    octets: 200
                }
            )
        );
        assert!(interface_counts(dev, "nsm").is_err());
        let snmp = "Ip: Forwarding InReceives OutRequests\nIp: 2 5 42\nIcmp: OutRequests\nIcmp: 1\n";
        assert_eq!(ipv4_sent(snmp).unwrap(), 42);
        assert_eq!(
            ipv6_sent("Ip6InReceives\t5\nIp6OutRequests                  \t17\n").unwrap(),
            17
        );
    }

    #[test]
    fn one_frame_that_only_one_witness_saw_is_a_disagreement() {
        let count = Count {
            frames: 3,
            octets: 300,
        };
        let agreed = Account {
            direction: String::new(),
            ip_packets: 3,
            sent: count,
            kernel: count,
            received: count,
        };
        assert!(agreed.agrees());
        let lost = Count {
            frames: 2,
            octets: 200,
        };
        assert!(
            !Account {
                received: lost,
                ..agreed.clone()
            }
            .agrees()
        );
        assert!(
            !Account {
                ip_packets: 4,
                ..agreed.clone()
            }
            .agrees()
        );
        assert!(
            !Account {
                sent: Count::default(),
                kernel: Count::default(),
                received: Count::default(),
                ip_packets: 0,
                ..agreed
            }
            .agrees()
        );
    }
}
