//! Labels. The syntax is that of Kubernetes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use tieline_proto::label;

use crate::{Invalid, limits::MAX_LABELS};

pub(crate) fn check_key(field: &str, key: &str) -> Result<(), Invalid> {
    if label::key_is_valid(key) {
        Ok(())
    } else {
        Err(Invalid::new(field, key, label::KEY_RULE))
    }
}

pub(crate) fn check_value(field: &str, key: &str, value: &str) -> Result<(), Invalid> {
    if label::value_is_valid(value) {
        return Ok(());
    }
    Err(Invalid::new(format!("{field}[{key}]"), value, label::VALUE_RULE))
}

pub(crate) fn check_count(field: &str, count: usize) -> Result<(), Invalid> {
    crate::service::check_count(field, count, MAX_LABELS)
}

/// Key-value pairs of one object, at most 64.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks the pairs; an error names `field`.
    pub fn parse<K, V>(field: &str, pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, Invalid>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value) = (key.into(), value.into());
            check_key(field, &key)?;
            check_value(field, &key, &value)?;
            labels.insert(key, value);
            check_count(field, labels.len())?;
        }
        Ok(Self(labels))
    }

    /// These, with those of `other` for the keys that these lack. What would be beyond the most labels of one object is
    /// left out, the last keys first.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut all = other.0.clone();
        all.extend(self.0.clone());
        while all.len() > MAX_LABELS {
            let further = all.keys().rev().find(|key| !self.0.contains_key(*key)).cloned();
            let Some(further) = further else { break };
            all.remove(&further);
        }
        Self(all)
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether every pair of `other` is among these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(key, value)| self.get(key) == Some(value))
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = Invalid;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        Self::parse("labels", pairs)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.iter().map(|(k, v)| format!("{k}={v}")))
    }
}

pub(crate) fn write_joined(f: &mut fmt::Formatter<'_>, parts: impl Iterator<Item = String>) -> fmt::Result {
    for (i, part) in parts.enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        f.write_str(&part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_syntax_is_that_of_kubernetes() {
        for (key, value) in [("app", "a"), ("example.com/app", ""), ("A_b.c-d", "X.y_Z-1")] {
            assert!(Labels::parse("l", [(key, value)]).is_ok(), "{key}={value}");
        }
        let long = "x".repeat(64);
        for (key, value) in [
            ("", "a"),
            ("-a", "a"),
            ("a/b/c", "a"),
            ("/a", "a"),
            ("Ex.com/a", "a"),
            ("a", "-"),
            ("a", "b c"),
            (&long, ""),
            ("a", &long),
        ] {
            assert!(Labels::parse("l", [(key, value)]).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn the_sixty_fifth_label_is_refused() {
        let pairs = |n: usize| (0..n).map(|i| (format!("k{i}"), "v")).collect::<Vec<_>>();
        assert!(Labels::parse("l", pairs(64)).is_ok());
        assert!(Labels::parse("l", pairs(65)).is_err());
    }

    #[test]
    fn own_labels_win_over_those_that_fill_in() {
        let parse = |pairs: &[(&str, &str)]| Labels::parse("l", pairs.iter().copied()).unwrap();
        let own = parse(&[("app", "fw"), ("zone", "a")]);
        assert_eq!(
            own.or(&parse(&[("app", "gw"), ("tier", "x")])),
            parse(&[("app", "fw"), ("tier", "x"), ("zone", "a")])
        );
        let many =
            |prefix: &str| Labels::parse("l", (0..64).map(|i| (format!("{prefix}{i:02}"), "v"))).unwrap();
        assert_eq!(
            many("b").or(&many("a")),
            many("b"),
            "never more than an object may have"
        );
    }
}
