//! Where the demonstration happens, and the proof that it is gone afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tieline_lab::{BpfFs, Leftovers, NetNs, Responder, Watch};

use super::report::Report;

/// How much of the node's log an error shows.
const LOG_LINES: usize = 15;
/// Where the gateway answers.
pub(crate) const PORT: u16 = 5000;

/// Names of the firewalls.
pub(crate) const FIREWALLS: [&str; 2] = ["fw-1", "fw-2"];

/// Five namespaces, a folder and a bpffs. Fields go in this order: what answers, namespaces, what is pinned.
pub(crate) struct Stage {
    /// Answers at the gateway.
    _responder: Responder,
    /// The agent's own: the host, in a way.
    pub(crate) node: NetNs,
    /// The client's.
    pub(crate) laptop: NetNs,
    /// The endpoint's.
    pub(crate) gateway: NetNs,
    /// The functions'. They route, and there is nothing in them but the kernel.
    pub(crate) firewalls: [NetNs; 2],
    /// Pins.
    pub(crate) bpffs: BpfFs,
    folder: TempDir,
}

impl Stage {
    /// Makes everything.
    pub(crate) fn build(report: &mut Report) -> Result<Self> {
        let begin = Instant::now();
        let folder = tempfile::Builder::new()
            .prefix("tl-demo-")
            .tempdir()
            .context("make a temporary folder")?;
        let bpffs = BpfFs::new()?;
        let gateway = NetNs::new("demo-gateway")?;
        let firewalls = [firewall("demo-fw-1")?, firewall("demo-fw-2")?];
        let stage = Self {
            _responder: Responder::start(&gateway, PORT)?,
            node: NetNs::new("demo-node")?,
            laptop: NetNs::new("demo-laptop")?,
            gateway,
            firewalls,
            bpffs,
            folder,
        };
        fs::write(stage.workloads(), stage.workloads_text())?;
        let [first, second] = &stage.firewalls;
        let names = [&stage.node, &stage.laptop, &stage.gateway, first, second].map(NetNs::name);
        report.step("network namespaces", &names.join(", "), Some(begin.elapsed()))?;
        Ok(stage)
    }

    /// Sockets, state, log.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the node's log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder().join("node.log")
    }

    /// The operator's file that says who is who.
    pub(crate) fn workloads(&self) -> PathBuf {
        self.folder().join("workloads.yaml")
    }

    fn workloads_text(&self) -> String {
        let entry = |netns: &NetNs, app: &str| {
            format!(
                "- netns: {{name: {}}}\n  labels: {{app: {app}, {app}: 'true'}}\n",
                netns.name()
            )
        };
        let [first, second] = &self.firewalls;
        let gateway = entry(&self.gateway, "vpngateway");
        format!(
            "workloads:\n{gateway}{}{}",
            entry(first, "firewall"),
            entry(second, "firewall")
        )
    }

    /// The end of the node's log, which goes with the stage.
    pub(crate) fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines = log.lines().collect::<Vec<_>>();
        let end = lines
            .iter()
            .skip(lines.len().saturating_sub(LOG_LINES))
            .copied()
            .collect::<Vec<_>>();
        format!("the node's log ends:\n  {}\nand what failed is", end.join("\n  "))
    }
}

fn firewall(label: &str) -> Result<NetNs> {
    let netns = NetNs::new(label)?;
    // Kernels before 6.17 cannot switch forwarding of IPv6 on for single interfaces: there a router does so for itself.
    if netns.sysctl("ipv6/conf/all/force_forwarding", "0").is_err() {
        netns.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(netns)
}

/// What there was before, and what must not be there afterwards.
pub(crate) struct Traces {
    before: Leftovers,
    folders: Vec<PathBuf>,
}

impl Traces {
    /// Notes the namespaces and child processes of this process.
    pub(crate) fn before() -> Result<Self> {
        Ok(Self {
            before: Leftovers::snapshot(&Watch::default())?,
            folders: Vec::new(),
        })
    }

    /// Also what this stage brings.
    pub(crate) fn of(mut self, stage: &Stage) -> Self {
        self.folders = vec![stage.folder().to_owned(), stage.bpffs.path().to_owned()];
        self
    }

    /// What is still there after the stage has gone; empty when all is clean. Interfaces go with their namespaces,
    /// pins with the bpffs.
    pub(crate) fn remaining(&self) -> Result<Vec<String>> {
        let mut remains = Vec::new();
        if let Err(error) = self.before.assert_same(&Watch::default()) {
            remains.push(error.to_string());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for folder in &self.folders {
            let path = folder.display().to_string();
            if mounts.lines().any(|line| {
                line.split(' ')
                    .nth(4)
                    .is_some_and(|point| point.starts_with(&path))
            }) {
                remains.push(format!("mount below {path}"));
            }
            if folder.exists() {
                remains.push(format!("folder {path}"));
            }
        }
        Ok(remains)
    }
}
