//! Which way packets go: what the kernel's counters at each hop of the wire say, and what the functions received.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tieline_lab::{Net, NetNs};

use super::{
    node::{Node, WireCounts},
    stage::{FIREWALLS, Stage},
};

/// What may pass besides the traffic of a step: a router solicitation, the transfer's last acknowledgement.
const STRAY: u64 = 8;

/// The name of the client's hop.
const CLIENT: &str = "laptop";

/// One look at every counter.
pub(crate) struct Look {
    /// The hops in their order: name, frames that it handed on towards the endpoint, and towards the client.
    hops: Vec<(String, u64, u64)>,
    /// Frames that each firewall received, whatever the wire says, by the index of its interface.
    received: BTreeMap<&'static str, BTreeMap<u32, u64>>,
}

/// Frames that a hop handed on between two looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hop {
    pub(crate) name: String,
    pub(crate) towards_endpoint: u64,
    pub(crate) towards_client: u64,
}

impl Look {
    /// Reads them.
    pub(crate) fn take(stage: &Stage, node: &Node<'_>, id: &str) -> Result<Self> {
        let counts = node.counts(id)?;
        let received = FIREWALLS.iter().zip(&stage.firewalls);
        Ok(Self {
            hops: hops(&counts)?,
            received: received
                .map(|(name, netns)| Ok((*name, frames_in(netns)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// The names of the hops behind the client, in order.
    pub(crate) fn path(&self) -> Vec<&str> {
        self.hops.iter().skip(1).map(|(name, ..)| name.as_str()).collect()
    }

    /// What each hop handed on since `before`; one that was not there handed on everything since.
    pub(crate) fn since(&self, before: &Self) -> Vec<Hop> {
        let known = |name: &str| before.hops.iter().find(|(other, ..)| other == name);
        let hop = |(name, out, back): &(String, u64, u64)| {
            let (_, out_before, back_before) = known(name).cloned().unwrap_or_default();
            Hop {
                name: name.clone(),
                towards_endpoint: out.saturating_sub(out_before),
                towards_client: back.saturating_sub(back_before),
            }
        };
        self.hops.iter().map(hop).collect()
    }

    /// Whether every hop has handed on what was answered since `before`, and no firewall beside the path has seen any of
    /// it.
    pub(crate) fn shows(&self, before: &Self, answered: u64) -> bool {
        let since = self.since(before);
        let last = since.len().saturating_sub(1);
        let every_hop = since.iter().enumerate().all(|(number, hop)| {
            // The client hands on nothing towards itself, nor the endpoint.
            (number == last || hop.towards_endpoint + STRAY >= answered)
                && (number == 0 || hop.towards_client + STRAY >= answered)
        });
        let path = self.path();
        let seen = |name: &str, now: &BTreeMap<u32, u64>| -> u64 {
            let before = before.received.get(name);
            let grown = |(index, frames): (&u32, &u64)| {
                let known = before.and_then(|before| before.get(index));
                frames.saturating_sub(known.copied().unwrap_or_default())
            };
            now.iter().map(grown).sum()
        };
        let mut others = self.received.iter().filter(|(name, _)| !path.contains(*name));
        let no_other = others.all(|(name, now)| seen(name, now) <= STRAY);
        every_hop && no_other
    }
}

fn hops(counts: &WireCounts) -> Result<Vec<(String, u64, u64)>> {
    let branch = counts.branches.first().context("the wire leads nowhere")?;
    let mut hops = vec![(CLIENT.to_owned(), counts.client.packets, 0)];
    for hop in &branch.hops {
        hops.push((hop.endpoint_name.clone(), hop.outside.packets, hop.inside.packets));
    }
    hops.push((branch.endpoint_name.clone(), 0, branch.endpoint.packets));
    Ok(hops)
}

/// Frames that each interface of a namespace has received, by index.
fn frames_in(netns: &NetNs) -> Result<BTreeMap<u32, u64>> {
    let links = netns
        .net(Net::links)?
        .into_iter()
        .filter(|link| link.name != "lo");
    // One may go while we look.
    let counted = links.filter_map(|link| {
        let counts = netns.counts(&link.name).ok()?;
        Some((link.ifindex, counts.received.frames))
    });
    Ok(counted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(hops: &[(&str, u64, u64)], received: [u64; 2]) -> Look {
        Look {
            hops: hops
                .iter()
                .map(|(name, out, back)| ((*name).to_owned(), *out, *back))
                .collect(),
            received: FIREWALLS
                .into_iter()
                .zip(received.map(|frames| BTreeMap::from([(2, frames)])))
                .collect(),
        }
    }

    #[test]
    fn a_path_is_shown_by_every_hop_of_it_and_by_the_silence_of_the_others() {
        let before = look(
            &[("laptop", 100, 0), ("fw-1", 50, 50), ("vpngateway", 0, 100)],
            [100, 7],
        );
        let after = look(
            &[("laptop", 1100, 0), ("fw-1", 1050, 1049), ("vpngateway", 0, 1100)],
            [2100, 7],
        );
        assert_eq!(after.path(), ["fw-1", "vpngateway"]);
        assert!(after.shows(&before, 1000));
        assert!(!after.shows(&before, 2000), "a hop has not seen all of it");
        let leak = look(
            &[("laptop", 1100, 0), ("fw-1", 1050, 1050), ("vpngateway", 0, 1100)],
            [2100, 107],
        );
        assert!(!leak.shows(&before, 1000), "another firewall has seen some of it");
        let lame = look(
            &[("laptop", 1100, 0), ("fw-1", 51, 1050), ("vpngateway", 0, 1100)],
            [2100, 7],
        );
        assert!(!lame.shows(&before, 1000), "the firewall has not handed it on");
    }

    #[test]
    fn a_hop_that_was_not_there_has_handed_on_everything_since() {
        let before = look(&[("laptop", 100, 0), ("vpngateway", 0, 100)], [0, 0]);
        let after = look(
            &[("laptop", 110, 0), ("fw-1", 4, 3), ("vpngateway", 0, 110)],
            [7, 0],
        );
        let since = after.since(&before);
        assert_eq!((since[1].towards_endpoint, since[1].towards_client), (4, 3));
        assert_eq!((since[0].towards_endpoint, since[2].towards_client), (10, 10));
    }
}
