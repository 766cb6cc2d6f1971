//! Labels, and the selectors that choose by them. The syntax is that of Kubernetes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use tieline_proto::label;

use crate::{
    Invalid,
    limits::{MAX_LABELS, MAX_TEMPLATE_LEN},
    text::text_form,
};

fn check_key(field: &str, key: &str) -> Result<(), Invalid> {
    if label::key_is_valid(key) {
        Ok(())
    } else {
        Err(Invalid::new(field, key, label::KEY_RULE))
    }
}

fn check_value(field: &str, key: &str, value: &str) -> Result<(), Invalid> {
    if label::value_is_valid(value) {
        return Ok(());
    }
    Err(Invalid::new(format!("{field}[{key}]"), value, label::VALUE_RULE))
}

fn check_count(field: &str, count: usize) -> Result<(), Invalid> {
    if count <= MAX_LABELS {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        count.to_string(),
        format!("at most {MAX_LABELS} labels"),
    ))
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

fn write_joined(f: &mut fmt::Formatter<'_>, parts: impl Iterator<Item = String>) -> fmt::Result {
    for (i, part) in parts.enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        f.write_str(&part)?;
    }
    Ok(())
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there and has this value.
    Equals,
    /// The label is missing or has another value.
    NotEquals,
}

/// One term of a [`Selector`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// The value compared with.
    pub value: String,
}

/// Terms that all must hold. The empty selector selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Reads the string form `a=b,c!=d` (`==` is `=`); an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let mut terms = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self(terms));
        }
        for term in text.split(',') {
            let (key, operator, value) = split_term(term).ok_or_else(|| {
                Invalid::new(
                    field,
                    term,
                    "a selector is terms \"key=value\" or \"key!=value\", joined by \",\"",
                )
            })?;
            check_key(field, key)?;
            check_value(field, key, value)?;
            terms.push(Requirement {
                key: key.to_owned(),
                operator,
                value: value.to_owned(),
            });
            check_count(field, terms.len())?;
        }
        terms.sort();
        terms.dedup();
        Ok(Self(terms))
    }

    /// Whether every term holds for `labels`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term.operator {
            Operator::Equals => labels.get(&term.key) == Some(&term.value),
            Operator::NotEquals => labels.get(&term.key) != Some(&term.value),
        })
    }

    /// The terms, in order.
    #[must_use]
    pub fn terms(&self) -> &[Requirement] {
        &self.0
    }
}

fn split_term(term: &str) -> Option<(&str, Operator, &str)> {
    let (key, operator, value) = if let Some((key, value)) = term.split_once("!=") {
        (key, Operator::NotEquals, value)
    } else if let Some((key, value)) = term.split_once("==") {
        (key, Operator::Equals, value)
    } else {
        let (key, value) = term.split_once('=')?;
        (key, Operator::Equals, value)
    };
    Some((key.trim(), operator, value.trim()))
}

/// The map form: each pair must be there.
impl From<&Labels> for Selector {
    fn from(labels: &Labels) -> Self {
        let term = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            value: value.to_owned(),
        };
        Self(labels.iter().map(term).collect())
    }
}

text_form!(Selector, "selector");

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(
            f,
            self.0.iter().map(|term| match term.operator {
                Operator::Equals => format!("{}={}", term.key, term.value),
                Operator::NotEquals => format!("{}!={}", term.key, term.value),
            }),
        )
    }
}

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
        let mut terms = Vec::with_capacity(self.0.len());
        for (key, pattern) in &self.0 {
            let value = pattern.render(request)?;
            terms.push(Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                value,
            });
        }
        Ok(Selector(terms))
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
    fn an_unequal_term_holds_when_the_label_is_missing() {
        let selector: Selector = "app=gw,tier!=test".parse().unwrap();
        assert!(selector.matches(&labels(&[("app", "gw")])));
        assert!(selector.matches(&labels(&[("app", "gw"), ("tier", "live")])));
        assert!(!selector.matches(&labels(&[("app", "gw"), ("tier", "test")])));
        assert!(!selector.matches(&labels(&[])));
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
    }

    #[test]
    fn a_selector_that_is_no_list_of_terms_is_refused() {
        for bad in ["app", "=x", "a=b,", "a=b c", "a>b"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
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
}
