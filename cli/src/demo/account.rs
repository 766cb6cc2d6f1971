//! Three witnesses for each direction of the wire, over all steps together: the sender's interface, Tieline's counters in
//! the kernel and the receiver's interface. They are independent of one another, and must agree to the octet.

use std::time::Duration;

use anyhow::Result;
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

/// What was seen of one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Account {
    direction: String,
    sent: Count,
    kernel: Count,
    received: Count,
}

impl Account {
    /// All witnesses say the same.
    pub(crate) fn agrees(&self) -> bool {
        self.kernel.frames > 0 && self.sent == self.kernel && self.kernel == self.received
    }
}

impl Row for Account {
    const HEADINGS: &'static [&'static str] = &[
        "DIRECTION",
        "LEFT THE SENDER",
        "COUNTED BY THE WIRE",
        "REACHED THE RECEIVER",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.direction.clone(),
            cell(self.sent),
            cell(self.kernel),
            cell(self.received),
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
            sent: after.laptop.transmitted.since(before.laptop.transmitted),
            kernel: after.from_client.since(before.from_client),
            received: after.gateway.received.since(before.gateway.received),
        },
        Account {
            direction: "gateway → laptop".to_owned(),
            sent: after.gateway.transmitted.since(before.gateway.transmitted),
            kernel: after.from_endpoint.since(before.from_endpoint),
            received: after.laptop.received.since(before.laptop.received),
        },
    ]
}

fn workloads(stage: &Stage, wire: &Wire) -> Result<(Counts, Counts)> {
    Ok((
        stage.laptop.counts(&wire.client_interface)?,
        stage.gateway.counts(&wire.endpoint_interface)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_that_only_one_witness_saw_is_a_disagreement() {
        let count = Count {
            frames: 3,
            octets: 300,
        };
        let agreed = Account {
            direction: String::new(),
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
                sent: Count::default(),
                kernel: Count::default(),
                received: Count::default(),
                ..agreed
            }
            .agrees()
        );
    }
}
