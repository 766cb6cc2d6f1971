//! The kernel's own statistics of a namespace: what its interfaces and its IP layer have counted.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::NetNs;

/// Frames and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Frames; a segment that is still to be cut counts once.
    pub frames: u64,
    /// Octets, with the Ethernet header.
    pub octets: u64,
}

impl Count {
    /// What was added since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.wrapping_sub(before.frames),
            octets: self.octets.wrapping_sub(before.octets),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            octets: self.octets + other.octets,
        }
    }
}

/// What an interface has received and transmitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Received.
    pub received: Count,
    /// Transmitted.
    pub transmitted: Count,
}

impl NetNs {
    /// What an interface of the namespace has counted (`/proc/net/dev`).
    pub fn counts(&self, interface: &str) -> Result<Counts> {
        self.run(|| read_dev(&file("dev")?, interface))
    }

    /// How many packets the namespace's IP layer has sent, of both families (`/proc/net/snmp`, `/proc/net/snmp6`).
    pub fn ip_sent(&self) -> Result<u64> {
        self.run(|| Ok(ipv4(&file("snmp")?, "Ip", "OutRequests")? + ipv6_sent(&file("snmp6")?)?))
    }

    /// What the namespace's ICMP of IPv4 has counted by this name, as `InEchos` (`/proc/net/snmp`).
    pub fn icmp(&self, name: &str) -> Result<u64> {
        self.run(|| ipv4(&file("snmp")?, "Icmp", name))
    }
}

/// The thread's own: `/proc/net` is the namespace of the process's first thread.
fn file(name: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

fn read_dev(text: &str, interface: &str) -> Result<Counts> {
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
    Ok(Counts {
        received: Count {
            frames: rx_frames,
            octets: rx_octets,
        },
        transmitted: Count {
            frames: tx_frames,
            octets: tx_octets,
        },
    })
}

/// The value of this name in the pair of lines that begin with `group`.
fn ipv4(text: &str, group: &str, name: &str) -> Result<u64> {
    let of_group = |line: &'_ str| Some(line.strip_prefix(group)?.strip_prefix(": ")?.to_owned());
    let mut lines = text.lines().filter_map(of_group);
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(one, _)| *one == name)
        .with_context(|| format!("no {name} of {group} in /proc/net/snmp"))?;
    Ok(value.parse()?)
}

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
    use crate::{PingPlan, ping};

    #[test]
    fn the_kernel_s_tables_are_read() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                   nsm-10: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n nsm-1: 100 7 0 0 0 0 0 0 200 9 0 0 0 0 0 0\n";
        let counts = read_dev(dev, "nsm-1").unwrap();
        assert_eq!((counts.received.frames, counts.received.octets), (7, 100));
        assert_eq!((counts.transmitted.frames, counts.transmitted.octets), (9, 200));
        assert!(read_dev(dev, "nsm").is_err());
        let snmp = "Ip: Forwarding InReceives OutRequests\nIp: 2 5 42\nIcmp: OutRequests\nIcmp: 1\n";
        assert_eq!(ipv4(snmp, "Ip", "OutRequests").unwrap(), 42);
        assert_eq!(ipv4(snmp, "Icmp", "OutRequests").unwrap(), 1);
        assert!(ipv4(snmp, "Icmp", "InEchos").is_err());
        let snmp6 = "Ip6InReceives\t5\nIp6OutRequests                  \t17\n";
        assert_eq!(ipv6_sent(snmp6).unwrap(), 17);
    }

    #[test]
    fn a_ping_is_counted() {
        let netns = NetNs::new("counts").unwrap();
        let before = (netns.counts("lo").unwrap(), netns.ip_sent().unwrap());
        let plan = PingPlan {
            count: 3,
            ..PingPlan::default()
        };
        ping(&netns, "127.0.0.1".parse().unwrap(), plan).unwrap();
        let after = (netns.counts("lo").unwrap(), netns.ip_sent().unwrap());
        // A request and its answer.
        assert_eq!(after.0.received.since(before.0.received).frames, 6);
        assert_eq!(after.1 - before.1, 6);
    }
}
