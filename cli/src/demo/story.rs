//! The story: a gateway alone, firewalls in front of it by two wirings, one of them drained, the wirings gone, the ordered
//! list in their place. Packets go on all the while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    DemoArgs, Interrupted,
    hops::{Hop, Look},
    node::{Node, SERVICE_YAML, Wire},
    report::Report,
    stage::{FIREWALLS, Stage},
    traffic::{Datagrams, Passed},
};
use crate::output::Row;

/// The two wirings of the document that the story is from.
const WIRINGS_YAML: (&str, &str) = (
    "wirings.yaml",
    include_str!("../../../docs/examples/gold-network/wirings.yaml"),
);
/// The same path by an ordered list.
const ORDERED_YAML: (&str, &str) = (
    "ordered.yaml",
    include_str!("../../../docs/examples/gold-network/ordered.yaml"),
);
const WIRINGS: [&str; 2] = ["gold-network-wiring-1", "gold-network-wiring-2"];

const GATEWAY: &str = "vpngateway";
const FW_1: &str = FIREWALLS[0];
const FW_2: &str = FIREWALLS[1];

/// Datagrams of each family that are answered before a step changes something.
const BEFORE: u64 = 50;
/// A change is in force within milliseconds; this is for loaded machines.
const LIMIT: Duration = Duration::from_secs(10);

/// A step that was made, and what became of the packets meanwhile.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    name: &'static str,
    /// The hops behind the laptop after the change.
    path: Vec<String>,
    /// From the command to the new path, in microseconds.
    took_us: u128,
    #[serde(flatten)]
    passed: Passed,
    /// What each hop handed on after the change.
    hops: Vec<Hop>,
    /// The path is the one told, the counters of each hop show it, and those of no other.
    as_told: bool,
}

impl Step {
    /// Every datagram was answered, in order.
    pub(crate) const fn is_lossless(&self) -> bool {
        self.passed.is_perfect()
    }

    /// The packets took the path that the story tells.
    pub(crate) const fn is_as_told(&self) -> bool {
        self.as_told
    }

    /// What the counters say.
    pub(crate) fn hops(&self) -> String {
        let hop = |hop: &Hop| match (hop.towards_endpoint, hop.towards_client) {
            (out, 0) => format!("{} {out}→", hop.name),
            (0, back) => format!("{} ←{back}", hop.name),
            (out, back) => format!("{} ←{back} {out}→", hop.name),
        };
        let hops: Vec<String> = self.hops.iter().map(hop).collect();
        hops.join("   ")
    }
}

impl Row for Step {
    const HEADINGS: &'static [&'static str] = &[
        "STEP",
        "PATH BY THE COUNTERS",
        "SENT",
        "ANSWERED",
        "LOST",
        "LONGEST GAP",
        "IN FORCE AFTER",
    ];

    fn cells(&self) -> Vec<String> {
        let short = |micros: u128| {
            super::report::short(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
        };
        let path = if self.as_told {
            format!("laptop → {}", self.path.join(" → "))
        } else {
            format!("NOT AS TOLD: {}", self.path.join(" → "))
        };
        vec![
            self.name.to_owned(),
            path,
            self.passed.sent.to_string(),
            self.passed.answered.to_string(),
            self.passed.lost.to_string(),
            short(self.passed.longest_gap_us),
            short(self.took_us),
        ]
    }
}

/// Who is in it.
pub(crate) struct Story<'a> {
    pub(crate) args: &'a DemoArgs,
    pub(crate) stage: &'a Stage,
    pub(crate) node: &'a Node<'a>,
    pub(crate) wire: &'a Wire,
    pub(crate) interrupted: &'a Interrupted,
}

impl Story<'_> {
    /// All steps, with what was sent and what came back in each.
    pub(crate) fn tell(&self, report: &mut Report) -> Result<()> {
        let [first, second] = &self.stage.firewalls;
        self.step("the gateway alone", &[GATEWAY], report, |_| Ok(()))?;
        self.step("a firewall registers", &[GATEWAY], report, |report| {
            self.node.register(FW_1, first, report)
        })?;
        self.step("wired through a firewall", &[FW_1, GATEWAY], report, |report| {
            self.node.apply(WIRINGS_YAML, report)
        })?;
        self.firewall_as_client(report)?;
        self.step(
            "a second firewall registers",
            &[FW_1, GATEWAY],
            report,
            |report| self.node.register(FW_2, second, report),
        )?;
        self.step("the first is drained", &[FW_2, GATEWAY], report, |report| {
            self.node.run(&["drain", "endpoint", FW_1], report)
        })?;
        self.step("the first is back", &[FW_2, GATEWAY], report, |report| {
            self.node.run(&["drain", "endpoint", FW_1, "--off"], report)
        })?;
        self.step("the second goes", &[FW_1, GATEWAY], report, |report| {
            self.node.run(&["delete", "endpoint", FW_2], report)
        })?;
        self.step("the wirings are deleted", &[GATEWAY], report, |report| {
            self.node.run(
                &[&["delete", "networkservicewiring"], &WIRINGS[..]].concat(),
                report,
            )
        })?;
        self.step(
            "an ordered list in their place",
            &[FW_1, GATEWAY],
            report,
            |report| self.node.apply(ORDERED_YAML, report),
        )?;
        self.step("the gateway alone again", &[GATEWAY], report, |report| {
            self.node.apply(SERVICE_YAML, report)
        })
    }

    /// One step: packets flow before, during and after the change.
    fn step(
        &self,
        name: &'static str,
        path: &[&str],
        report: &mut Report,
        change: impl FnOnce(&mut Report) -> Result<()>,
    ) -> Result<()> {
        let look = || Look::take(self.stage, self.node, &self.wire.id);
        let datagrams = Datagrams::start(self.args, self.stage, self.wire)?;
        datagrams.wait_for(BEFORE, self.interrupted)?;
        report.begin(name)?;
        let begin = Instant::now();
        change(report)?;
        let before = loop {
            let look = look()?;
            if look.path() == path || begin.elapsed() > LIMIT {
                break look;
            }
            self.interrupted.check()?;
        };
        let took = begin.elapsed();
        let answered = datagrams.answered();
        datagrams.wait_for(self.args.datagrams, self.interrupted)?;
        let answered = datagrams.answered() - answered;
        let after = look()?;
        report.told(Step {
            name,
            path: after.path().into_iter().map(str::to_owned).collect(),
            took_us: took.as_micros(),
            passed: datagrams.finish()?,
            hops: after.since(&before),
            as_told: after.path() == path && after.shows(&before, answered),
        })
    }

    /// A firewall uses the service as well, and is led to the gateway: not to itself, not to another firewall.
    fn firewall_as_client(&self, report: &mut Report) -> Result<()> {
        let [first, _] = &self.stage.firewalls;
        report.begin("the firewall as a client")?;
        let wire = self.node.request("fw-1-own", first, report)?;
        let look = Look::take(self.stage, self.node, &wire.id)?;
        let path = look.path().join(" → ");
        ensure!(path == GATEWAY, "the firewall is led to {path}");
        report.remark(&format!("{FW_1} → {path}, answered in both families"))?;
        self.node.run(&["close", &wire.id], report)
    }
}
