//! Workloads that the operator of the node names.
//!
//! ```yaml
//! workloads:
//! - netns: {name: fw-1}                       # or {path: /run/docker/netns/4f2c}
//!   labels: {app: firewall}
//! - cgroup: /system.slice/gateway.service     # it, and what is below it
//!   uid: 990
//!   labels: {app: gateway, tier: "1"}
//! - interface: tap7                           # an endpoint that is an interface of the node: a VM's tap
//!   labels: {app: legacy}
//! ```
//!
//! An entry applies when everything it names holds; what is not known of a workload does not hold. (When root of the
//! node calls for another namespace, cgroup and user are known only if it named that by a process.) Several entries may
//! apply: their labels are merged, and must not contradict each other.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    super::place::Place,
    Facts, LabelsError, Merged,
    form::{self, CgroupPrefix, WorkloadForm, WorkloadsForm},
};
use crate::desired::IfName;

/// The entries of one file.
#[derive(Debug, Default)]
pub(super) struct Workloads(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// Who says so, for errors.
    title: String,
    netns: Option<PathBuf>,
    interface: Option<IfName>,
    cgroup: Option<CgroupPrefix>,
    uid: Option<u32>,
    labels: BTreeMap<String, String>,
}

/// Reads a file's text. Entries that apply to the same workloads whatever happens must agree.
pub(super) fn read(path: &Path, text: &str) -> Result<Workloads, String> {
    let form: WorkloadsForm = form::parse(text)?;
    form::check_count(form.workloads.len())?;
    let mut entries: Vec<Entry> = Vec::with_capacity(form.workloads.len());
    for (i, form) in form.workloads.into_iter().enumerate() {
        let entry = Entry::new(format!("workloads[{i}] of {}", path.display()), form)
            .map_err(|error| format!("workloads[{i}]: {error}"))?;
        for other in &entries {
            if other.implies(&entry) || entry.implies(other) {
                let mut merged = Merged::default();
                let agreed = merged
                    .add(&other.title, &other.labels)
                    .and_then(|()| merged.add(&entry.title, &entry.labels));
                agreed.map_err(|error| error.to_string())?;
            }
        }
        entries.push(entry);
    }
    Ok(Workloads(entries))
}

impl Workloads {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds what applies.
    pub(super) fn add_to(&self, merged: &mut Merged, facts: &Facts) -> Result<(), LabelsError> {
        self.0
            .iter()
            .filter(|entry| entry.applies(facts))
            .try_for_each(|entry| merged.add(&entry.title, &entry.labels))
    }
}

impl Entry {
    fn new(title: String, form: WorkloadForm) -> Result<Self, String> {
        let interface = form.interface.map(|name| IfName::new(&name)).transpose();
        let entry = Self {
            title,
            netns: form.netns.map(form::NetnsForm::path).transpose()?,
            interface: interface.map_err(|error| error.to_string())?,
            cgroup: form.cgroup.as_deref().map(CgroupPrefix::new).transpose()?,
            uid: form.uid,
            labels: form.labels.0,
        };
        if entry.netns.is_none() && entry.interface.is_none() && entry.cgroup.is_none() && entry.uid.is_none()
        {
            return Err("it would apply to every workload: write netns, interface, cgroup or uid".to_owned());
        }
        if entry.interface.is_some()
            && (entry.netns.is_some() || entry.cgroup.is_some() || entry.uid.is_some())
        {
            return Err("an interface of the node has no netns, cgroup or uid: leave them out".to_owned());
        }
        Ok(entry)
    }

    fn applies(&self, facts: &Facts) -> bool {
        let in_cgroup =
            |prefix: &CgroupPrefix| facts.cgroup.as_deref().is_some_and(|path| prefix.holds(path));
        let is_interface = |name: &IfName| matches!(&facts.place, Place::Interface(place) if place == name);
        // The file system is asked last.
        self.uid.is_none_or(|uid| facts.uid == Some(uid))
            && self.cgroup.as_ref().is_none_or(in_cgroup)
            && self.interface.as_ref().is_none_or(is_interface)
            && self.netns.as_deref().is_none_or(|path| facts.is_at(path))
    }

    /// Whether `other` applies wherever this one does.
    fn implies(&self, other: &Self) -> bool {
        let covered = match (&self.cgroup, &other.cgroup) {
            (_, None) => true,
            (Some(own), Some(other)) => other.covers(own),
            (None, Some(_)) => false,
        };
        covered
            && (other.netns.is_none() || other.netns == self.netns)
            && (other.interface.is_none() || other.interface == self.interface)
            && (other.uid.is_none() || other.uid == self.uid)
    }
}
