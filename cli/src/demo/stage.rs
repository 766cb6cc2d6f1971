//! Where the demonstration happens, and the proof that it is gone afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tieline_lab::{BpfFs, Leftovers, NetNs, Watch};

use super::report::Report;

/// How much of the node's log an error shows.
const LOG_LINES: usize = 15;

/// Three namespaces, a folder and a bpffs. Fields go in this order: namespaces before what is pinned.
pub(crate) struct Stage {
    /// The agent's own: the host, in a way.
    pub(crate) node: NetNs,
    /// The client's.
    pub(crate) laptop: NetNs,
    /// The endpoint's.
    pub(crate) gateway: NetNs,
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
        let stage = Self {
            node: NetNs::new("demo-node")?,
            laptop: NetNs::new("demo-laptop")?,
            gateway: NetNs::new("demo-gateway")?,
            bpffs,
            folder,
        };
        let names = [&stage.node, &stage.laptop, &stage.gateway].map(NetNs::name);
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
