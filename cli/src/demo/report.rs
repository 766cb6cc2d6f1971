//! What the demonstration says: steps as they happen for people, one object at the end for programs.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tieline_lab::TcpReport;

use super::{account::Account, story::Step};
use crate::{
    exit::Exit,
    output::{self, Format},
};

/// Collects and prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(skip)]
    format: Format,
    #[serde(skip)]
    number: u32,
    /// From a Request at the agent's socket to the first answered packet, median, in microseconds.
    request_to_first_packet_us: u128,
    steps: Vec<Step>,
    /// The transfer that went on through all steps; every octet was right.
    transfer: Option<TcpReport>,
    counters: Vec<Account>,
    /// Nothing was lost or out of order in any step.
    lossless: bool,
    /// In each step packets took the path that the story tells, and no other.
    as_told: bool,
    /// The counters agree.
    agreed: bool,
    /// What remained; empty when all is clean.
    remains: Vec<String>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            number: 0,
            request_to_first_packet_us: 0,
            steps: Vec::new(),
            transfer: None,
            counters: Vec::new(),
            lossless: false,
            as_told: false,
            agreed: false,
            remains: Vec::new(),
        }
    }

    /// A step that was done.
    pub(crate) fn step(&mut self, what: &str, detail: &str, took: Option<Duration>) -> Result<()> {
        self.number += 1;
        let took = took
            .map(|took| format!("  ({})", short(took)))
            .unwrap_or_default();
        self.say(&format!("{:>2}. {what}: {detail}{took}\n", self.number))
    }

    /// A command that was given.
    pub(crate) fn command(&mut self, line: &str) -> Result<()> {
        self.say(&format!("    $ {line}\n"))
    }

    /// How long workloads wait; sorted.
    pub(crate) fn setup_times(&mut self, times: &[Duration]) -> Result<()> {
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let last = times.last().copied().unwrap_or_default();
        self.request_to_first_packet_us = middle.as_micros();
        let (middle, last) = (short(middle), short(last));
        let detail = format!(
            "{middle} (median of {} wires through the API), {last} at most",
            times.len()
        );
        self.step("Request to first packet", &detail, None)
    }

    /// A step of the story that begins.
    pub(crate) fn begin(&mut self, name: &str) -> Result<()> {
        self.number += 1;
        self.say(&format!("{:>2}. {name}\n", self.number))
    }

    /// What is to be said of it.
    pub(crate) fn remark(&mut self, line: &str) -> Result<()> {
        self.say(&format!("    {line}\n"))
    }

    /// A step of the story that ended.
    pub(crate) fn told(&mut self, step: Step) -> Result<()> {
        self.remark(&format!("frames handed on: {}", step.hops()))?;
        self.steps.push(step);
        Ok(())
    }

    /// All steps, and what was counted over all of them.
    pub(crate) fn traffic(&mut self, transfer: TcpReport, counters: [Account; 2]) -> Result<()> {
        self.lossless = !self.steps.is_empty() && self.steps.iter().all(Step::is_lossless);
        self.as_told = self.steps.iter().all(Step::is_as_told);
        self.agreed = counters.iter().all(Account::agrees);
        (self.transfer, self.counters) = (Some(transfer), counters.into());
        let what = "numbered datagrams to the gateway and back, in both families, through every change";
        self.step("traffic", what, None)?;
        self.say(&indent(&output::table(&self.steps)))?;
        let TcpReport {
            bytes,
            longest_stall,
            retransmits,
            ..
        } = transfer;
        let stall = short(longest_stall);
        let detail = format!(
            "{bytes} octets through all of them, each as it was sent; {retransmits} segments resent, longest stall {stall}"
        );
        self.step("TCP transfer", &detail, None)?;
        let what = "frames and octets over all steps, as three witnesses saw them";
        self.step("counters", what, None)?;
        self.say(&indent(&output::table(&self.counters)))?;
        let verdict = if self.agreed {
            "all agree"
        } else {
            "THEY DO NOT AGREE"
        };
        self.remark(verdict)
    }

    /// What remained.
    pub(crate) fn cleaned(&mut self, remains: &[String]) -> Result<()> {
        remains.clone_into(&mut self.remains);
        if remains.is_empty() {
            let what = "no namespace, interface, pin, mount, file or process of ours remains";
            self.step("clean-up", what, None)
        } else {
            self.step("clean-up", &format!("LEFT BEHIND: {}", remains.join("; ")), None)
        }
    }

    /// The verdict.
    pub(crate) fn finish(self) -> Result<Exit> {
        let good = self.lossless && self.as_told && self.agreed && self.remains.is_empty();
        let verdict = if good {
            "\nEvery packet arrived in order, on the path that was asked for; all counters agree, nothing remains.\n"
        } else {
            "\nFAILED\n"
        };
        output::object(self.format, &self, || verdict.to_owned())?;
        Ok(if good { Exit::Ok } else { Exit::Failed })
    }

    /// Only people read along.
    fn say(&self, text: &str) -> Result<()> {
        if self.format == Format::Table {
            output::text(text)?;
        }
        Ok(())
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Three digits are enough for people.
pub(crate) fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(short(Duration::from_micros(21)), "21 µs");
        assert_eq!(short(Duration::from_micros(2150)), "2.1 ms");
        assert_eq!(short(Duration::from_millis(1234)), "1.23 s");
    }
}
