//! The shape of the files, and the way from there to valid objects and back: one file for each kind.

mod endpoint;
mod selector;
mod service;
mod wiring;

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use super::API_VERSION;
use crate::{Invalid, Labels, ObjectKind, net::parse_prefix};

pub(super) use {endpoint::EndpointSpec, service::ServiceSpec, wiring::WiringSpec};

/// One object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    labels: Pairs<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LabelsForm {
    labels: Pairs<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A map whose keys do not repeat.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Pairs<V>(BTreeMap<String, V>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Pairs<V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of key: value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if pairs.contains_key(&key) {
                        return Err(A::Error::custom(format!(
                            "the key \"{key}\" is given twice in this map"
                        )));
                    }
                    pairs.insert(key, map.next_value()?);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

impl<S> Document<S> {
    fn new(kind: ObjectKind, name: &str, spec: S) -> Self {
        let metadata = Metadata {
            name: name.to_owned(),
            namespace: None,
            labels: Pairs::default(),
        };
        Self {
            api_version: API_VERSION.to_owned(),
            kind: kind.to_string(),
            metadata,
            spec,
        }
    }

    /// The name as it is written.
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }
}

fn pairs(labels: &Labels) -> Pairs<String> {
    Pairs(
        labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn prefixes(field: &str, texts: &[String]) -> Result<Vec<ipnet::IpNet>, Invalid> {
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| parse_prefix(&format!("{field}[{i}]"), text))
        .collect()
}
