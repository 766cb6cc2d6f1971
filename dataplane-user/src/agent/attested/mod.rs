//! What the agent can prove of a workload, as labels.
//!
//! A workload may say of itself what it likes; the labels here come from two sources that it has no hand in: files in
//! which the operator of the node names workloads by namespace, interface, cgroup and user ([`workloads`]), and a folder in
//! which whoever runs pods describes each of them ([`pods`]). Both are looked at again with every call, so that what
//! was written before a workload started counts for its first call. A file that cannot be read keeps what it said
//! before; where it never said anything, nothing is guessed: the call is refused.

mod form;
mod pods;
#[cfg(test)]
mod tests;
mod watched;
mod workloads;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use self::{pods::Pods, watched::Watched, workloads::Workloads};
use super::place::{Place, lies_at};

/// How often the sources are looked at when nobody calls, so that status tells of a bad file soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the kernel tells of a workload. Nothing in it is the workload's own word; what is `None` is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Where it is.
    pub(crate) place: Place,
    /// Its path in the cgroup2 hierarchy.
    pub(crate) cgroup: Option<String>,
    /// Its user.
    pub(crate) uid: Option<u32>,
}

impl Facts {
    /// Whether it is in the namespace that lies at `path` now.
    fn is_at(&self, path: &Path) -> bool {
        matches!(&self.place, Place::Netns(netns) if lies_at(path) == Some(netns.id))
    }
}

/// Why labels cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelsError {
    /// Two sources say different things of one workload.
    #[error(
        "label {key} of the calling workload: {first} says \"{first_value}\", {second} says \"{second_value}\"; make \
         one of them more exact, or let them agree"
    )]
    Contradiction {
        key: String,
        first: String,
        first_value: String,
        second: String,
        second_value: String,
    },
    /// A source has never said anything.
    #[error("the labels of the calling workload are not known: {path}: {reason}")]
    Unread { path: String, reason: String },
}

/// One source, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceReport {
    /// The file or folder.
    pub(crate) path: String,
    /// How many workloads or pods it describes.
    pub(crate) entries: usize,
    /// What is wrong with it now; empty if nothing is.
    pub(crate) error: String,
}

/// Labels with who said so, merged from all that applies to one workload.
#[derive(Debug, Default)]
struct Merged(BTreeMap<String, (String, String)>);

impl Merged {
    fn add(&mut self, said_by: &str, labels: &BTreeMap<String, String>) -> Result<(), LabelsError> {
        for (key, value) in labels {
            match self.0.get(key) {
                Some((first_value, first)) if first_value != value => {
                    return Err(LabelsError::Contradiction {
                        key: key.clone(),
                        first: first.clone(),
                        first_value: first_value.clone(),
                        second: said_by.to_owned(),
                        second_value: value.clone(),
                    });
                }
                Some(_) => {}
                None => drop(self.0.insert(key.clone(), (value.clone(), said_by.to_owned()))),
            }
        }
        Ok(())
    }
}

/// Every source of the node.
#[derive(Debug)]
pub(crate) struct Attested(Option<Mutex<Sources>>);

#[derive(Debug)]
struct Sources {
    files: Vec<Watched<Workloads>>,
    pods: Option<Pods>,
}

impl Attested {
    /// From these files and this folder; nothing is read yet.
    pub(crate) fn new(files: &[PathBuf], pods: Option<&Path>) -> Self {
        if files.is_empty() && pods.is_none() {
            return Self(None);
        }
        Self(Some(Mutex::new(Sources {
            files: files.iter().map(|path| Watched::new(path)).collect(),
            pods: pods.map(Pods::new),
        })))
    }

    /// The labels of a workload. Reads what has changed since the last look, so call it where blocking is allowed.
    pub(crate) fn labels_of(&self, facts: &Facts) -> Result<HashMap<String, String>, LabelsError> {
        let Some(sources) = &self.0 else {
            return Ok(HashMap::new());
        };
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut merged = Merged::default();
        for file in &mut sources.files {
            file.look(workloads::read);
            let path = file.path().display();
            let Some(workloads) = file.good() else {
                return Err(LabelsError::Unread {
                    path: path.to_string(),
                    reason: file.error().to_owned(),
                });
            };
            workloads.add_to(&mut merged, facts)?;
        }
        if let Some(pods) = &mut sources.pods {
            pods.look_for_call();
            pods.add_to(&mut merged, facts)?;
        }
        Ok(merged
            .0
            .into_iter()
            .map(|(key, (value, _))| (key, value))
            .collect())
    }

    /// Every source as it stands.
    pub(crate) fn report(&self) -> Vec<SourceReport> {
        let Some(sources) = &self.0 else {
            return Vec::new();
        };
        let sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let files = sources.files.iter().map(|file| SourceReport {
            path: file.path().display().to_string(),
            entries: file.good().map_or(0, Workloads::len),
            error: file.error().to_owned(),
        });
        files.chain(sources.pods.iter().map(Pods::report)).collect()
    }

    /// Looks at every source now.
    fn look(&self) {
        let Some(sources) = &self.0 else { return };
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        for file in &mut sources.files {
            file.look(workloads::read);
        }
        if let Some(pods) = &mut sources.pods {
            pods.look();
        }
    }

    /// Looks at the sources from time to time, until `shutdown`.
    pub(crate) async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        if self.0.is_none() {
            return shutdown.cancelled().await;
        }
        loop {
            let attested = Arc::clone(&self);
            // A look that panics leaves what was known before.
            let _ = tokio::task::spawn_blocking(move || attested.look()).await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}
