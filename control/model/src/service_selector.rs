//! Which endpoints a service has, and in which order its clients' packets pass them.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::{
    Invalid, Labels,
    labels::{check_key, check_value, write_joined},
    limits::MAX_STAGES,
};

/// A service's `selector`: labels that its endpoints carry, or an ordered list of functions that its clients' packets
/// pass, `app: [firewall, vpngateway]`. Empty: any endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, OneOrMany>",
    into = "BTreeMap<String, OneOrMany>"
)]
pub struct ServiceSelector {
    /// What each endpoint of a position carries, from the client on. There is at least one position.
    stages: Vec<Labels>,
    /// The key whose values are in order.
    ordered: Option<String>,
}

/// One label value, or several in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One value.
    One(String),
    /// Values in order.
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label value as text, or an ordered list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany::Many(values))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

impl ServiceSelector {
    /// Checks the pairs, of which one at most has several values in order; an error names `field`.
    pub(crate) fn parse(
        field: &str,
        pairs: impl IntoIterator<Item = (String, OneOrMany)>,
    ) -> Result<Self, Invalid> {
        let mut common = BTreeMap::new();
        let mut list: Option<(String, Vec<String>)> = None;
        for (key, value) in pairs {
            match (value, &list) {
                (OneOrMany::One(value), _) => drop(common.insert(key, value)),
                (OneOrMany::Many(values), None) => list = Some((key, values)),
                (OneOrMany::Many(_), Some((other, _))) => {
                    let rule = format!("\"{other}\" has an ordered list already: one key may have one");
                    return Err(Invalid::new(format!("{field}[{key}]"), "", rule));
                }
            }
        }
        match list {
            Some((key, values)) => Self::ordered(field, &key, &values, &Labels::parse(field, common)?),
            None => Ok(Self::from(Labels::parse(field, common)?)),
        }
    }

    /// Positions told apart by the values of `key`, each with the labels in `common` as well; an error names `field`.
    pub fn ordered(field: &str, key: &str, values: &[String], common: &Labels) -> Result<Self, Invalid> {
        if !(2..=MAX_STAGES).contains(&values.len()) {
            let rule =
                format!("an ordered list has 2 to {MAX_STAGES} values; write a single one without list");
            return Err(Invalid::new(
                format!("{field}[{key}]"),
                format!("{} values", values.len()),
                rule,
            ));
        }
        check_key(field, key)?;
        let stage = |value: &String| {
            check_value(field, key, value)?;
            let own = (key.to_owned(), value.clone());
            let common = common
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            Labels::parse(field, common.chain([own]))
        };
        Ok(Self {
            stages: values.iter().map(stage).collect::<Result<_, _>>()?,
            ordered: Some(key.to_owned()),
        })
    }

    /// Whether any endpoint will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(Labels::is_empty)
    }

    /// What the endpoints of each position carry, from the client on: at least one.
    #[must_use]
    pub fn stages(&self) -> &[Labels] {
        &self.stages
    }

    /// The key whose values are in order, and the values.
    #[must_use]
    pub fn order(&self) -> Option<(&str, Vec<&str>)> {
        let key = self.ordered.as_deref()?;
        Some((
            key,
            self.stages.iter().filter_map(|stage| stage.get(key)).collect(),
        ))
    }

    /// The labels that the endpoints of every position carry.
    #[must_use]
    pub fn common(&self) -> BTreeMap<&str, &str> {
        let ordered = self.ordered.as_deref();
        let first = self.stages.first().into_iter().flat_map(Labels::iter);
        first.filter(|(key, _)| Some(*key) != ordered).collect()
    }

    /// The pairs, as they are written.
    pub(crate) fn pairs(&self) -> BTreeMap<String, OneOrMany> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), OneOrMany::One(value.to_owned()));
        let mut pairs: BTreeMap<_, _> = self.common().into_iter().map(owned).collect();
        if let Some((key, values)) = self.order() {
            let values = values.into_iter().map(str::to_owned).collect();
            pairs.insert(key.to_owned(), OneOrMany::Many(values));
        }
        pairs
    }
}

impl Default for ServiceSelector {
    fn default() -> Self {
        Self::from(Labels::default())
    }
}

impl From<Labels> for ServiceSelector {
    fn from(labels: Labels) -> Self {
        Self {
            stages: vec![labels],
            ordered: None,
        }
    }
}

impl TryFrom<BTreeMap<String, OneOrMany>> for ServiceSelector {
    type Error = Invalid;

    fn try_from(pairs: BTreeMap<String, OneOrMany>) -> Result<Self, Invalid> {
        Self::parse("selector", pairs)
    }
}

impl From<ServiceSelector> for BTreeMap<String, OneOrMany> {
    fn from(selector: ServiceSelector) -> Self {
        selector.pairs()
    }
}

impl fmt::Display for ServiceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |(key, value): (String, OneOrMany)| match value {
            OneOrMany::One(value) => format!("{key}={value}"),
            OneOrMany::Many(values) => format!("{key}=[{}]", values.join(", ")),
        };
        write_joined(f, self.pairs().into_iter().map(pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Result<ServiceSelector, Invalid> {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        let common = Labels::parse("l", [("tier", "a")])?;
        ServiceSelector::ordered("selector", "app", &values, &common)
    }

    #[test]
    fn an_ordered_list_has_a_position_for_each_value() {
        let selector = list(&["firewall", "vpngateway"]).unwrap();
        let stages: Vec<String> = selector.stages().iter().map(ToString::to_string).collect();
        assert_eq!(stages, ["app=firewall,tier=a", "app=vpngateway,tier=a"]);
        assert_eq!(selector.to_string(), "app=[firewall, vpngateway],tier=a");
        let text = serde_json::to_string(&selector).unwrap();
        assert_eq!(
            serde_json::from_str::<ServiceSelector>(&text).unwrap(),
            selector,
            "{text}"
        );
    }

    #[test]
    fn lists_that_name_no_order_are_refused() {
        assert_eq!(list(&["a"]).unwrap_err().field, "selector[app]");
        assert!(list(&["a", "-"]).is_err());
        assert!(list(&["a"; 18]).is_err());
        let two = BTreeMap::from(["a", "b"].map(|key| {
            (
                key.to_owned(),
                OneOrMany::Many(vec!["x".to_owned(), "y".to_owned()]),
            )
        }));
        assert!(
            ServiceSelector::try_from(two)
                .unwrap_err()
                .rule
                .contains("\"a\" has an ordered list")
        );
    }
}
