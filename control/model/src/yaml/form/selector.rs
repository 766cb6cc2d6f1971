//! Selectors in files: a text `a=b,c!=d`, a map of labels, or Kubernetes' `matchLabels` and `matchExpressions`.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap as _,
};

use super::Pairs;
use crate::{Invalid, Labels, Operator, Requirement, Selector};

const MATCH_LABELS: &str = "matchLabels";
const MATCH_EXPRESSIONS: &str = "matchExpressions";

/// A selector as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SelectorForm {
    /// The text form.
    Text(String),
    /// Terms, each with its field for errors.
    Terms {
        labels: BTreeMap<String, String>,
        expressions: Vec<Expression>,
    },
}

/// One of `matchExpressions`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Default for SelectorForm {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl SelectorForm {
    /// Whether it selects everything.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Terms { labels, expressions } => labels.is_empty() && expressions.is_empty(),
        }
    }

    /// The selector, if every rule holds; an error names `field`.
    pub(super) fn selector(self, field: &str) -> Result<Selector, Invalid> {
        let (labels, expressions) = match self {
            Self::Text(text) => return Selector::parse(field, &text),
            Self::Terms { labels, expressions } => (labels, expressions),
        };
        let labels = Labels::parse(field, labels)?;
        let mut terms = Selector::from(&labels).terms().to_vec();
        for (i, one) in expressions.into_iter().enumerate() {
            let field = format!("{field}.{MATCH_EXPRESSIONS}[{i}]");
            let operator = Operator::parse(&format!("{field}.operator"), &one.operator)?;
            terms.push(Requirement::new(&field, &one.key, operator, one.values)?);
        }
        Selector::new(field, terms)
    }
}

impl From<&Selector> for SelectorForm {
    fn from(selector: &Selector) -> Self {
        let owned = |pairs: BTreeMap<&str, &str>| {
            let pairs = pairs.into_iter();
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        match selector.as_pairs() {
            Some(pairs) if !pairs.contains_key(MATCH_LABELS) && !pairs.contains_key(MATCH_EXPRESSIONS) => {
                Self::Terms {
                    labels: owned(pairs),
                    expressions: Vec::new(),
                }
            }
            _ => Self::Text(selector.to_string()),
        }
    }
}

impl Serialize for SelectorForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Terms { labels, .. } => {
                let mut map = serializer.serialize_map(Some(labels.len()))?;
                for (key, value) in labels {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for SelectorForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl<'de> Visitor<'de> for FormVisitor {
            type Value = SelectorForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a selector: text \"a=b,c!=d\", a map of label: text, or matchLabels and matchExpressions",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<SelectorForm, E> {
                Ok(SelectorForm::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SelectorForm, A::Error> {
                let (mut plain, mut labels, mut expressions) = (BTreeMap::new(), None, None);
                while let Some(key) = map.next_key::<String>()? {
                    let again = match key.as_str() {
                        MATCH_LABELS => labels.replace(map.next_value::<Pairs<String>>()?.0).is_some(),
                        MATCH_EXPRESSIONS => expressions.replace(map.next_value()?).is_some(),
                        _ => plain.insert(key.clone(), map.next_value()?).is_some(),
                    };
                    if again {
                        return Err(A::Error::custom(format!(
                            "the key \"{key}\" is given twice in this map"
                        )));
                    }
                }
                let structured = labels.is_some() || expressions.is_some();
                if let Some(key) = plain.keys().next().filter(|_| structured) {
                    return Err(A::Error::custom(format!(
                        "\"{key}\" stands beside {MATCH_LABELS} or {MATCH_EXPRESSIONS}: put it into {MATCH_LABELS}"
                    )));
                }
                Ok(SelectorForm::Terms {
                    labels: labels.unwrap_or(plain),
                    expressions: expressions.unwrap_or_default(),
                })
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}
