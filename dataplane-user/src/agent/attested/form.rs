//! The form of the files: YAML (or JSON, which is YAML), read strictly.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use tieline_proto::label;

/// The most entries of one file.
const MAX_ENTRIES: usize = 4096;

/// Labels in a file: keys do not repeat, keys and values have the syntax of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelMap(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for LabelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;

        impl<'de> Visitor<'de> for LabelVisitor {
            type Value = LabelMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of label: \"value\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelMap, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let refused =
                        |value: &str, rule: &str| Err(A::Error::custom(format!("{key} \"{value}\": {rule}")));
                    if !label::key_is_valid(&key) {
                        return refused("", label::KEY_RULE);
                    }
                    let value: String = map.next_value()?;
                    if !label::value_is_valid(&value) {
                        return refused(&value, label::VALUE_RULE);
                    }
                    if labels.contains_key(&key) {
                        return refused(&value, "the label is given twice: keep one");
                    }
                    labels.insert(key, value);
                    if labels.len() > label::MAX_LABELS {
                        return Err(A::Error::custom(format!(
                            "more than {} labels",
                            label::MAX_LABELS
                        )));
                    }
                }
                Ok(LabelMap(labels))
            }
        }

        deserializer.deserialize_map(LabelVisitor)
    }
}

/// A file of workloads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadsForm {
    pub(super) workloads: Vec<WorkloadForm>,
}

/// One entry of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadForm {
    pub(super) netns: Option<NetnsForm>,
    pub(super) interface: Option<String>,
    pub(super) cgroup: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) labels: LabelMap,
}

/// A network namespace: one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetnsForm {
    name: Option<String>,
    path: Option<PathBuf>,
}

impl NetnsForm {
    /// Where its file is.
    pub(super) fn path(self) -> Result<PathBuf, String> {
        match (self.name, self.path) {
            (Some(name), None) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                Ok(PathBuf::from("/run/netns").join(name))
            }
            (Some(name), None) => Err(format!("netns.name \"{name}\": a name as in `ip netns`")),
            (None, Some(path)) if path.is_absolute() => Ok(path),
            (None, Some(path)) => Err(format!("netns.path \"{}\": an absolute path", path.display())),
            _ => Err("netns: write name or path, one of them".to_owned()),
        }
    }
}

/// A pod's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodForm {
    pub(super) uid: Option<String>,
    pub(super) cgroup: Option<String>,
    pub(super) netns: Option<NetnsForm>,
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: LabelMap,
}

/// Reads a file's text.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

/// Refuses more entries than fit.
pub(super) fn check_count(count: usize) -> Result<(), String> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    Err(format!(
        "it has {count} entries, more than {MAX_ENTRIES}: split it"
    ))
}

/// A part of the cgroup2 hierarchy, by the path of its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupPrefix(String);

impl CgroupPrefix {
    /// From a path below the cgroup2 mount.
    pub(super) fn new(path: &str) -> Result<Self, String> {
        let parts_are_plain = path
            .split('/')
            .skip(1)
            .all(|part| !matches!(part, "" | "." | ".."));
        if path.starts_with('/') && path.len() > 1 && parts_are_plain {
            return Ok(Self(path.to_owned()));
        }
        Err(format!(
            "cgroup \"{path}\": an absolute path below the cgroup2 mount, such as /system.slice/gateway.service"
        ))
    }

    /// Whether `path` is this cgroup's or one's below it. A path that leads out of the agent's own cgroup namespace is
    /// not known.
    pub(super) fn holds(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.0);
        !path.contains("/..") && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether every workload of `other` is one of this, too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.holds(&other.0)
    }
}
