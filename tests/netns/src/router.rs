//! Functions that packets pass, and what the operator says of workloads.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tieline_lab::{Net, NetNs, PREFIX};
use tieline_proto::registry::NetworkServiceEndpoint;

use crate::{Scene, netns_url};

/// A namespace that routes, with nothing in it but the kernel: registered as an endpoint, and with no address of its
/// own on the wires that pass it.
#[derive(Debug)]
pub struct Router {
    /// Its namespace.
    pub netns: NetNs,
    /// What it is registered by.
    pub registered: NetworkServiceEndpoint,
}

impl Router {
    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.registered.name
    }

    /// How many frames each of its interfaces that are there has received, by index.
    pub fn received(&self) -> Result<BTreeMap<u32, u64>> {
        let links = self.netns.net(Net::links)?;
        let links = links.into_iter().filter(|link| link.name != "lo");
        // One may go while we look.
        let counted = links.filter_map(|link| {
            let counts = self.netns.counts(&link.name).ok()?;
            Some((link.ifindex, counts.received.frames))
        });
        Ok(counted.collect())
    }
}

/// The operator's file that says what is proven of workloads.
#[derive(Debug)]
pub struct Attested {
    dir: TempDir,
    text: String,
}

impl Attested {
    /// An empty file.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}workloads-"))
            .tempdir()?;
        let attested = Self {
            dir,
            text: "workloads:\n".to_owned(),
        };
        fs::write(attested.path(), "workloads: []\n")?;
        Ok(attested)
    }

    /// Where it is, for `--workloads`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("workloads.yaml")
    }

    /// Says of the workload in this namespace that it has these labels, written `a: b, c: d`.
    pub fn say(&mut self, netns: &NetNs, labels: &str) -> Result<()> {
        let (name, next) = (netns.name(), self.dir.path().join("next"));
        self.text
            .push_str(&format!("- netns: {{name: {name}}}\n  labels: {{{labels}}}\n"));
        fs::write(&next, &self.text)?;
        // At once, as an editor does: the agent never reads half of it.
        fs::rename(&next, self.path()).context("replace the file of workloads")
    }
}

impl Scene {
    /// A router in a namespace that is there, registered by what `form` makes of its URL.
    pub fn route_in(
        &self,
        netns: NetNs,
        form: impl FnOnce(&str) -> NetworkServiceEndpoint,
    ) -> Result<Router> {
        let_route(&netns)?;
        let registered = self.api.register(form(&netns_url(&netns)))?;
        Ok(Router { netns, registered })
    }
}

/// Makes a function of a namespace. Tieline turns forwarding on where it needs it; kernels before 6.17 cannot do that for
/// IPv6 at single interfaces: there the function does so itself.
pub fn let_route(netns: &NetNs) -> Result<()> {
    match netns.sysctl("ipv6/conf/all/force_forwarding", "0") {
        Ok(()) => Ok(()),
        Err(_) => netns.sysctl("ipv6/conf/all/forwarding", "1"),
    }
}
