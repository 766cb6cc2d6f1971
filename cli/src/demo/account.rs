//! Three witnesses for each direction of the wire, over all steps together: the sender's interface, Tieline's counters in
//! the kernel and the receiver's interface. They are independent of one another, and must agree to the octet.
//!
//! The node asks the gateway whether it lives, through the wire's own path: what it asks enters behind the first counter, and
//! what is answered is taken out before the laptop. Such frames have a length of their own, and the gateway's kernel counts
//! how many it was asked and answered, over all of its interfaces.

use std::time::Duration;

use anyhow::Result;
use dataplane_common::probe;
use serde::Serialize;
use tieline_lab::{Count, Counts, within};

use super::{
    node::{Node, Wire},
    stage::Stage,
};
use crate::output::Row;

fn cell(count: Count) -> String {
    format!("{} / {}", count.frames, count.octets)
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Towards {
    Gateway,
    Laptop,
}

/// What was seen of one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Account {
    towards: Towards,
    sent: Count,
    kernel: Count,
    received: Count,
    /// Questions, or the answers to them, that the gateway's kernel counted, over this wire or another one.
    echoes: u64,
}

impl Account {
    /// All witnesses say the same.
    pub(crate) fn agrees(&self) -> bool {
        let agree = match self.towards {
            Towards::Gateway => self.sent == self.kernel,
            // Where there are functions, the counter at the gateway has seen answers that are taken out behind it.
            Towards::Laptop => {
                (self.received.frames..=self.sent.frames).contains(&self.kernel.frames)
                    && (self.received.octets..=self.sent.octets).contains(&self.kernel.octets)
            }
        };
        agree && self.kernel.frames > 0 && self.probes().is_some()
    }

    /// The node's own frames among these; `None` if what one witness saw and another did not cannot be those.
    fn probes(&self) -> Option<u64> {
        let (more, less) = match self.towards {
            Towards::Gateway => (self.received, self.kernel),
            Towards::Laptop => (self.sent, self.received),
        };
        let frames = more.frames.checked_sub(less.frames)?;
        let octets = more.octets.checked_sub(less.octets)?;
        (octets == frames * u64::from(probe::FRAME_LEN) && frames <= self.echoes).then_some(frames)
    }
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "DIRECTION",
        "LEFT THE SENDER",
        "COUNTED BY THE WIRE",
        "REACHED THE RECEIVER",
        "THE NODE'S PROBES",
    ];

    fn cells(&self) -> Vec<String> {
        let direction = match self.towards {
            Towards::Gateway => "laptop → gateway",
            Towards::Laptop => "gateway → laptop",
        };
        vec![
            direction.to_owned(),
            cell(self.sent),
            cell(self.kernel),
            cell(self.received),
            self.probes()
                .map_or_else(|| "-".to_owned(), |frames| frames.to_string()),
        ]
    }
}

/// All counters at one quiet moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    laptop: Counts,
    gateway: Counts,
    from_client: Count,
    from_endpoint: Count,
    /// Echo requests that the gateway was asked, and those that it answered.
    echoes: [u64; 2],
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
            echoes: before.2,
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

/// What each direction carried between two readings. Nobody but the node sends echo requests meanwhile.
pub(crate) fn compare(before: Reading, after: Reading) -> [Account; 2] {
    let echoes = |which: usize| after.echoes[which] - before.echoes[which];
    [
        Account {
            towards: Towards::Gateway,
            sent: after.laptop.transmitted.since(before.laptop.transmitted),
            kernel: after.from_client.since(before.from_client),
            received: after.gateway.received.since(before.gateway.received),
            echoes: echoes(0),
        },
        Account {
            towards: Towards::Laptop,
            sent: after.gateway.transmitted.since(before.gateway.transmitted),
            kernel: after.from_endpoint.since(before.from_endpoint),
            received: after.laptop.received.since(before.laptop.received),
            echoes: echoes(1),
        },
    ]
}

fn workloads(stage: &Stage, wire: &Wire) -> Result<(Counts, Counts, [u64; 2])> {
    Ok((
        stage.laptop.counts(&wire.client_interface)?,
        stage.gateway.counts(&wire.endpoint_interface)?,
        [stage.gateway.icmp("InEchos")?, stage.gateway.icmp("OutEchoReps")?],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: u64 = probe::FRAME_LEN as u64;

    /// Frames of 100 octets, and some of a probe's length.
    const fn count([frames, probes]: [u64; 2]) -> Count {
        Count {
            frames: frames + probes,
            octets: frames * 100 + probes * PROBE,
        }
    }

    const fn account(towards: Towards, witnesses: [[u64; 2]; 3], echoes: u64) -> Account {
        let [sent, kernel, received] = witnesses;
        Account {
            towards,
            sent: count(sent),
            kernel: count(kernel),
            received: count(received),
            echoes,
        }
    }

    #[test]
    fn one_frame_that_only_one_witness_saw_is_a_disagreement() {
        for towards in [Towards::Gateway, Towards::Laptop] {
            assert!(account(towards, [[3, 0]; 3], 0).agrees());
            assert!(!account(towards, [[3, 0], [3, 0], [2, 0]], 9).agrees());
            assert!(!account(towards, [[3, 0], [3, 0], [4, 0]], 9).agrees());
            assert!(!account(towards, [[0, 0]; 3], 0).agrees());
        }
        assert!(!account(Towards::Gateway, [[3, 0], [2, 0], [3, 0]], 9).agrees());
    }

    #[test]
    fn the_nodes_probes_are_told_apart() {
        let out = |received, echoes| account(Towards::Gateway, [[3, 0], [3, 0], received], echoes);
        assert!(out([3, 2], 2).agrees() && out([3, 2], 5).agrees());
        assert!(!out([3, 2], 1).agrees(), "more than were asked");
        assert!(!out([2, 2], 5).agrees(), "one was lost");
        let back = |kernel, received| account(Towards::Laptop, [[3, 2], kernel, received], 2);
        for passed_on in 0..=2 {
            assert!(back([3, passed_on], [3, 0]).agrees());
        }
        assert!(!back([3, 3], [3, 0]).agrees());
        assert!(!back([3, 2], [2, 0]).agrees(), "one was lost");
    }
}
