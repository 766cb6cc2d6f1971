//! Pods that whoever runs them describes, one file each.
//!
//! The folder is the whole contract: it does not matter who writes it (a container runtime's hook, a controller, the
//! kubelet's own downward files turned into this form). A file is named `ANYTHING.yaml`, `.yml` or `.json`, is put there
//! under another name first and renamed, before the pod's processes start, and goes with the pod:
//!
//! ```yaml
//! uid: 7c9e6679-7425-40de-944b-e07fc1f90ae7   # found in the cgroup path that the kubelet gives the pod
//! cgroup: /machine.slice/libpod-4f2c.scope    # or the cgroup itself, for other runtimes
//! netns: {path: /run/netns/cni-1b2c}          # or the namespace, for calls that are made on the pod's behalf
//! namespace: default
//! name: users-1
//! labels: {app: users}
//! ```
//!
//! One of `uid`, `cgroup` and `netns` is needed, and one that holds is enough. A pod's labels are the file's, and
//! `io.kubernetes.pod.namespace` and `io.kubernetes.pod.name` (a name that is too long for a label value is left out).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tieline_proto::label;

use super::{
    Facts, LabelsError, Merged, SourceReport,
    form::{self, CgroupPrefix, LabelMap, PodForm},
    watched::Watched,
};

/// How long files that were rewritten in place may go unnoticed. New, renamed and removed ones are noticed at once.
const REWRITE_GRAIN: Duration = Duration::from_millis(200);
/// The most files that are read.
const MAX_FILES: usize = 10_000;
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const NAME_LABEL: &str = "io.kubernetes.pod.name";
/// Where a kubelet keeps pods: only what is below one of these can be a pod's cgroup. Elsewhere a user may have been
/// given a part of the hierarchy, and names cgroups there as it likes.
const KUBELET_ROOTS: [&str; 4] = ["kubepods", "kubepods.slice", "kubelet", "kubelet.slice"];

/// One pod.
#[derive(Debug)]
struct Pod {
    title: String,
    uid: Option<String>,
    cgroup: Option<CgroupPrefix>,
    netns: Option<PathBuf>,
    labels: BTreeMap<String, String>,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Pods {
    path: PathBuf,
    files: BTreeMap<PathBuf, Watched<Pod>>,
    /// The folder's time of change at the last look.
    listed: Option<(i64, i64)>,
    looked: Option<Instant>,
    error: String,
}

impl Pods {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            listed: None,
            looked: None,
            error: String::new(),
        }
    }

    /// Looks at what may have changed since the last call.
    pub(super) fn look_for_call(&mut self) {
        let listed = fs::metadata(&self.path)
            .ok()
            .map(|it| (it.ctime(), it.ctime_nsec()));
        let fresh = self.looked.is_some_and(|at| at.elapsed() < REWRITE_GRAIN);
        if !fresh || listed.is_none() || listed != self.listed {
            self.look();
        }
    }

    /// Looks at every file.
    pub(super) fn look(&mut self) {
        self.looked = Some(Instant::now());
        // Before the folder is read: what is put there meanwhile shows at the next look.
        self.listed = fs::metadata(&self.path)
            .ok()
            .map(|it| (it.ctime(), it.ctime_nsec()));
        match list(&self.path) {
            Ok(paths) => {
                self.error.clear();
                self.files.retain(|path, _| paths.contains(path));
                for path in paths {
                    let file = self.files.entry(path);
                    let file = file.or_insert_with_key(|path| Watched::new(path));
                    file.look(read);
                }
            }
            Err(error) => {
                if error != self.error {
                    tracing::warn!(path = %self.path.display(), error, "the pod folder cannot be read; pods that are known stay");
                }
                self.error = error;
            }
        }
    }

    /// Adds the labels of the pod that the workload is in. A workload in a pod's cgroup that no file describes has no
    /// labels, unless there is a file that could not be read and may be the one.
    pub(super) fn add_to(&self, merged: &mut Merged, facts: &Facts) -> Result<(), LabelsError> {
        let uid = facts.cgroup.as_deref().and_then(pod_uid);
        let mut described = false;
        for pod in self.files.values().filter_map(Watched::good) {
            if pod.holds(facts, uid.as_deref()) {
                described = true;
                merged.add(&pod.title, &pod.labels)?;
            }
        }
        if described || uid.is_none() {
            return Ok(());
        }
        let unread = |path: &Path, reason: &str| LabelsError::Unread {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        if !self.error.is_empty() {
            return Err(unread(&self.path, &self.error));
        }
        match self.files.values().find(|file| file.good().is_none()) {
            Some(file) => Err(unread(file.path(), file.error())),
            None => Ok(()),
        }
    }

    pub(super) fn report(&self) -> SourceReport {
        let bad = self.files.values().filter(|file| !file.error().is_empty());
        let bad: Vec<String> = bad
            .map(|file| format!("{}: {}", file.path().display(), file.error()))
            .collect();
        let error = if self.error.is_empty() {
            bad.join("; ")
        } else {
            self.error.clone()
        };
        SourceReport {
            path: self.path.display().to_string(),
            entries: self.files.values().filter(|file| file.good().is_some()).count(),
            error,
        }
    }
}

/// The files of pods in a folder.
fn list(folder: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let is_pod = |path: &PathBuf| {
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(OsStr::to_str);
        !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
    };
    let mut paths = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if is_pod(&path) {
            paths.insert(path);
        }
        if paths.len() > MAX_FILES {
            return Err(format!("it has more than {MAX_FILES} files"));
        }
    }
    Ok(paths)
}

fn read(path: &Path, text: &str) -> Result<Pod, String> {
    let form: PodForm = form::parse(text)?;
    let uid = form.uid.map(|uid| checked_uid(&uid)).transpose()?;
    let pod = Pod {
        title: path.display().to_string(),
        uid,
        cgroup: form.cgroup.as_deref().map(CgroupPrefix::new).transpose()?,
        netns: form.netns.map(form::NetnsForm::path).transpose()?,
        labels: labels(form.labels, &form.namespace, form.name)?,
    };
    if pod.uid.is_none() && pod.cgroup.is_none() && pod.netns.is_none() {
        return Err("nothing says which pod it is about: write uid, cgroup or netns".to_owned());
    }
    Ok(pod)
}

fn checked_uid(uid: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_hexdigit() || b == b'-';
    if (8..=64).contains(&uid.len()) && uid.bytes().all(good) {
        return Ok(uid.to_ascii_lowercase());
    }
    Err(format!(
        "uid \"{uid}\": a pod's uid has 8 to 64 hexadecimal digits and \"-\""
    ))
}

/// The pod's own labels and those that name it. The former cannot say otherwise.
fn labels(own: LabelMap, namespace: &str, name: String) -> Result<BTreeMap<String, String>, String> {
    let mut labels = own.0;
    if namespace.is_empty() || !label::value_is_valid(namespace) {
        return Err(format!("namespace \"{namespace}\": {}", label::VALUE_RULE));
    }
    let given = [
        (NAMESPACE_LABEL, Some(namespace.to_owned())),
        (NAME_LABEL, Some(name).filter(|name| label::value_is_valid(name))),
    ];
    for (key, value) in given {
        let claimed = labels.remove(key);
        if claimed.is_some() && claimed != value {
            let claimed = claimed.unwrap_or_default();
            return Err(format!(
                "labels[{key}] \"{claimed}\": it names another pod: leave it out"
            ));
        }
        labels.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(labels)
}

impl Pod {
    fn holds(&self, facts: &Facts, uid: Option<&str>) -> bool {
        let by_uid = self.uid.is_some() && self.uid.as_deref() == uid;
        let in_cgroup =
            |prefix: &CgroupPrefix| facts.cgroup.as_deref().is_some_and(|path| prefix.holds(path));
        by_uid
            || self.cgroup.as_ref().is_some_and(in_cgroup)
            || self.netns.as_deref().is_some_and(|path| facts.is_at(path))
    }
}

/// The uid in the cgroup path that a kubelet gave a pod: `…/podUID/…`, or `…-podUID.slice/…` with `_` for `-`. The
/// outermost one: what is below is the pod's own to name.
pub(super) fn pod_uid(cgroup: &str) -> Option<String> {
    let mut parts = cgroup.strip_prefix('/')?.split('/');
    let root = parts.next()?;
    if !KUBELET_ROOTS.contains(&root) || cgroup.contains("/..") {
        return None;
    }
    parts.find_map(|part| {
        let name = part.strip_suffix(".slice").unwrap_or(part);
        let uid = name
            .strip_prefix("pod")
            .or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?;
        checked_uid(&uid.replace('_', "-")).ok()
    })
}
