//! Selectors by label: which objects a rule is about. Meaning and text form are those of Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Labels,
    labels::{check_count, check_key, check_value, write_joined},
    text::{text_form, word_form},
};

const FORM_RULE: &str =
    "a selector is terms joined by \",\": key=value, key!=value, key in (a,b), key notin (a,b), key, !key";

/// How a requirement looks at a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there, with one of the values.
    In,
    /// The label is missing, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 4] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist];

    /// The word in `matchExpressions`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }

    fn takes_values(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

word_form!(Operator, "operator", "an operator");

/// One term of a [`Selector`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// Checks key and values; an error names `field`. `In` and `NotIn` have values, the others none.
    pub fn new<V: Into<String>>(
        field: &str,
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, Invalid> {
        check_key(field, key)?;
        let values: BTreeSet<String> = values.into_iter().map(Into::into).collect();
        for value in &values {
            check_value(field, key, value)?;
        }
        check_count(field, values.len())?;
        if operator.takes_values() == values.is_empty() {
            let rule = if values.is_empty() {
                "In and NotIn need at least one value"
            } else {
                "Exists and DoesNotExist have no values: leave them out"
            };
            return Err(Invalid::new(format!("{field}[{key}]"), operator.as_str(), rule));
        }
        Ok(Self {
            key: key.to_owned(),
            operator,
            values,
        })
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is looked at.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values compared with, in order.
    #[must_use]
    pub fn values(&self) -> &BTreeSet<String> {
        &self.values
    }

    /// Whether it holds for `labels`.
    #[must_use]
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            operator,
            values,
        } = self;
        let one = values.first().filter(|_| values.len() == 1);
        let list = || values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (operator, one) {
            (Operator::In, Some(value)) => write!(f, "{key}={value}"),
            (Operator::NotIn, Some(value)) => write!(f, "{key}!={value}"),
            (Operator::In, None) => write!(f, "{key} in ({})", list()),
            (Operator::NotIn, None) => write!(f, "{key} notin ({})", list()),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
        }
    }
}

/// Terms that all must hold. The empty selector selects everything. One that nothing can satisfy is not a selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Reads the string form `a=b,c!=d,e in (f,g),h,!i` (`==` is `=`); an error names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let terms = split_terms(text).map(|term| parse_term(field, term));
        Self::new(field, terms.collect::<Result<_, _>>()?)
    }

    /// Checks the number of terms, and that they do not contradict one another; an error names `field`.
    pub fn new(field: &str, mut terms: Vec<Requirement>) -> Result<Self, Invalid> {
        check_count(field, terms.len())?;
        terms.sort();
        terms.dedup();
        let selector = Self(terms);
        for (key, wanted) in selector.wants() {
            if wanted.is_impossible() {
                let of_key = selector.0.iter().filter(|term| term.key == key);
                let terms = of_key.map(ToString::to_string).collect::<Vec<_>>().join(",");
                let rule =
                    "these terms contradict each other, so that nothing is selected: remove one of them";
                return Err(Invalid::new(format!("{field}[{key}]"), terms, rule));
            }
        }
        Ok(selector)
    }

    /// The map form, of pairs that are known to be good labels: each must be there.
    pub(crate) fn from_pairs(pairs: BTreeMap<String, String>) -> Self {
        let term = |(key, value)| Requirement {
            key,
            operator: Operator::In,
            values: BTreeSet::from([value]),
        };
        Self(pairs.into_iter().map(term).collect())
    }

    /// The pairs, when each term asks for one value.
    #[must_use]
    pub fn as_pairs(&self) -> Option<BTreeMap<&str, &str>> {
        let pair = |term: &'_ Requirement| term.operator == Operator::In && term.values.len() == 1;
        let mut pairs = BTreeMap::new();
        for term in &self.0 {
            let value = term.values.first().filter(|_| pair(term))?;
            if pairs.insert(term.key.as_str(), value.as_str()).is_some() {
                return None;
            }
        }
        Some(pairs)
    }

    /// Whether every term holds for `labels`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| term.holds(labels))
    }

    /// The first term that does not hold for `labels`.
    #[must_use]
    pub fn unmet(&self, labels: &Labels) -> Option<&Requirement> {
        self.0.iter().find(|term| !term.holds(labels))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The terms, in order.
    #[must_use]
    pub fn terms(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether whatever is selected here is selected by `other` as well.
    #[must_use]
    pub fn implies(&self, other: &Self) -> bool {
        let own = self.wants();
        other
            .wants()
            .iter()
            .all(|(key, wanted)| own.get(key).is_some_and(|own| own.implies(wanted)))
    }

    /// Whether something may be selected by both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let own = self.wants();
        other.wants().into_iter().all(|(key, wanted)| {
            own.get(key)
                .is_none_or(|own| !own.clone().and(wanted).is_impossible())
        })
    }

    fn wants(&self) -> BTreeMap<&str, Wanted<'_>> {
        let mut wants: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
        for term in &self.0 {
            let wanted = wants.remove(term.key.as_str()).unwrap_or_default();
            wants.insert(&term.key, wanted.and(Wanted::from(term)));
        }
        wants
    }
}

/// What a selector asks of one label, all its terms taken together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted<'a> {
    /// It must be there.
    present: bool,
    /// It must be missing.
    absent: bool,
    /// With one of these values.
    among: Option<BTreeSet<&'a str>>,
    /// With none of these values.
    except: BTreeSet<&'a str>,
}

impl<'a> From<&'a Requirement> for Wanted<'a> {
    fn from(term: &'a Requirement) -> Self {
        let values: BTreeSet<&str> = term.values.iter().map(String::as_str).collect();
        let mut wanted = Self::default();
        match term.operator {
            Operator::In => (wanted.present, wanted.among) = (true, Some(values)),
            Operator::NotIn => wanted.except = values,
            Operator::Exists => wanted.present = true,
            Operator::DoesNotExist => wanted.absent = true,
        }
        wanted
    }
}

impl Wanted<'_> {
    fn and(mut self, other: Self) -> Self {
        self.present |= other.present;
        self.absent |= other.absent;
        self.among = match (self.among, other.among) {
            (Some(a), Some(b)) => Some(a.intersection(&b).copied().collect()),
            (a, b) => a.or(b),
        };
        self.except.extend(other.except);
        self
    }

    fn is_impossible(&self) -> bool {
        let exhausted = |among: &BTreeSet<&str>| among.is_subset(&self.except);
        (self.present && self.absent) || self.among.as_ref().is_some_and(exhausted)
    }

    fn implies(&self, other: &Self) -> bool {
        let admits = |value: &str| {
            other.among.as_ref().is_none_or(|among| among.contains(value)) && !other.except.contains(value)
        };
        if self.absent {
            return !other.present;
        }
        if other.absent || (other.present && !self.present) {
            return false;
        }
        match &self.among {
            Some(among) => among.difference(&self.except).all(|value| admits(value)),
            None => other.among.is_none() && other.except.is_subset(&self.except),
        }
    }
}

/// Splits at the commas outside of parentheses.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
}

fn parse_term(field: &str, term: &str) -> Result<Requirement, Invalid> {
    let term = term.trim();
    let invalid = || Invalid::new(field, term, FORM_RULE);
    let one =
        |key: &str, operator, value: &str| Requirement::new(field, key.trim(), operator, [value.trim()]);
    if let Some((key, value)) = term.split_once("!=") {
        return one(key, Operator::NotIn, value);
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return one(key, Operator::In, value);
    }
    if let Some(inner) = term.strip_suffix(')') {
        let (head, list) = inner.split_once('(').ok_or_else(invalid)?;
        let (key, word) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(invalid)?;
        let operator = match word {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            _ => return Err(invalid()),
        };
        return Requirement::new(field, key.trim(), operator, list.split(',').map(str::trim));
    }
    let (key, operator) = match term.strip_prefix('!') {
        Some(key) => (key.trim(), Operator::DoesNotExist),
        None => (term, Operator::Exists),
    };
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()<>!".contains(c)) {
        return Err(invalid());
    }
    Requirement::new(field, key, operator, [""; 0])
}

/// The map form: each pair must be there.
impl From<&Labels> for Selector {
    fn from(labels: &Labels) -> Self {
        Self::from_pairs(labels.clone().into())
    }
}

text_form!(Selector, "selector");

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.0.iter().map(ToString::to_string))
    }
}

#[cfg(test)]
mod tests;
