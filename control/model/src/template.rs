//! Selectors whose values may be templates over the labels of a request, as in NSM's `matches`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use tieline_proto::label;

use crate::{
    Invalid, Labels, Selector,
    labels::{check_count, check_key, check_value, write_joined},
    limits::MAX_TEMPLATE_LEN,
};

/// A label value in a service's `matches`: literal, or with `{{ .label }}` for a label of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Label(String),
}

impl LabelPattern {
    fn parse(field: &str, key: &str, text: &str) -> Result<Self, Invalid> {
        let invalid = |rule: &str| Invalid::new(format!("{field}[{key}]"), text, rule);
        if !text.contains("{{") && !text.contains("}}") {
            check_value(field, key, text)?;
            return Ok(Self {
                text: text.to_owned(),
                parts: vec![Part::Literal(text.to_owned())],
            });
        }
        if text.len() > MAX_TEMPLATE_LEN {
            return Err(invalid(&format!(
                "a template has at most {MAX_TEMPLATE_LEN} characters"
            )));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            let label = after
                .split_once("}}")
                .and_then(|(inner, rest)| Some((inner.trim().strip_prefix('.')?, rest)));
            let Some((label, after)) = label.filter(|(label, _)| label::key_is_valid(label)) else {
                return Err(invalid(
                    "a template is \"{{ .label }}\" with a label of the request",
                ));
            };
            parts.extend(literal_part(literal));
            parts.push(Part::Label(label.to_owned()));
            rest = after;
        }
        parts.extend(literal_part(rest));
        let literal_is_good = |part: &Part| match part {
            Part::Literal(literal) => literal
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            Part::Label(_) => true,
        };
        if !parts.iter().all(literal_is_good) {
            return Err(invalid(label::VALUE_RULE));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// The value for a request with `labels`, or the label that the request lacks.
    pub fn render<'a>(&'a self, labels: &Labels) -> Result<String, &'a str> {
        let mut value = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => value.push_str(literal),
                Part::Label(label) => value.push_str(labels.get(label).ok_or(label.as_str())?),
            }
        }
        Ok(value)
    }
}

fn literal_part(text: &str) -> Option<Part> {
    (!text.is_empty()).then(|| Part::Literal(text.to_owned()))
}

impl fmt::Display for LabelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A selector of a service's `matches`: pairs that all must be there, values possibly with templates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct MatchSelector(BTreeMap<String, LabelPattern>);

impl MatchSelector {
    /// Checks the pairs; an error names `field`.
    pub fn parse<K, V>(field: &str, pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, Invalid>
    where
        K: Into<String>,
        V: AsRef<str>,
    {
        let mut terms = BTreeMap::new();
        for (key, value) in pairs {
            let key = key.into();
            check_key(field, &key)?;
            let pattern = LabelPattern::parse(field, &key, value.as_ref())?;
            terms.insert(key, pattern);
            check_count(field, terms.len())?;
        }
        Ok(Self(terms))
    }

    /// The labels that this asks for when the request has `request`, or the label that the request lacks.
    pub fn render(&self, request: &Labels) -> Result<Selector, &str> {
        let mut terms = BTreeMap::new();
        for (key, pattern) in &self.0 {
            terms.insert(key.clone(), pattern.render(request)?);
        }
        Ok(Selector::from_pairs(terms))
    }

    /// What it asks for of any request; `None` if that depends on the request.
    #[must_use]
    pub fn fixed(&self) -> Option<Selector> {
        let plain = |pattern: &LabelPattern| matches!(pattern.parts.as_slice(), [] | [Part::Literal(_)]);
        let terms = self
            .0
            .iter()
            .map(|(key, pattern)| (key.clone(), pattern.text.clone()));
        self.0
            .values()
            .all(plain)
            .then(|| Selector::from_pairs(terms.collect()))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs as text, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, pattern)| (key.as_str(), pattern.text.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for MatchSelector {
    type Error = Invalid;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        Self::parse("selector", pairs)
    }
}

impl From<MatchSelector> for BTreeMap<String, String> {
    fn from(selector: MatchSelector) -> Self {
        selector
            .0
            .into_iter()
            .map(|(key, pattern)| (key, pattern.text))
            .collect()
    }
}

impl fmt::Display for MatchSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.iter().map(|(k, v)| format!("{k}={v}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::parse("labels", pairs.iter().copied()).unwrap()
    }

    #[test]
    fn templates_take_the_values_of_the_request() {
        let selector = MatchSelector::parse("s", [("node", "{{.nodeName}}"), ("x", "v-{{ .v }}-z")]).unwrap();
        let rendered = selector
            .render(&labels(&[("nodeName", "n1"), ("v", "2")]))
            .unwrap();
        assert!(rendered.matches(&labels(&[("node", "n1"), ("x", "v-2-z")])));
        assert_eq!(selector.render(&labels(&[("v", "2")])).unwrap_err(), "nodeName");
    }

    #[test]
    fn a_malformed_template_is_refused() {
        for bad in ["{{.a", "{{a}}", "{{.}}", "a}}", "{{ .a }} b", "{{{{.a}}"] {
            assert!(MatchSelector::parse("s", [("k", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_selector_without_templates_is_the_same_for_all() {
        let selector = |value: &str| MatchSelector::parse("s", [("k", value)]).unwrap();
        assert_eq!(selector("v").fixed(), Some("k=v".parse().unwrap()));
        assert_eq!(selector("").fixed(), Some("k=".parse().unwrap()));
        assert_eq!(selector("{{ .v }}").fixed(), None);
    }
}
