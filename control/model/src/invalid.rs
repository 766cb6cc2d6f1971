//! The one error of this crate.

/// A value that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} \"{value}\": {rule}")]
pub struct Invalid {
    /// Path of the field in the API's spelling: `connection.labels[app]`.
    pub field: String,
    /// The value as it was given, shortened if it is long.
    pub value: String,
    /// The rule that it breaks and what to do.
    pub rule: String,
}

/// The most characters of an offending value that are repeated to the caller.
const MAX_SHOWN: usize = 80;

impl Invalid {
    /// Builds the error. `value` is cut after 80 characters, and control characters in it are escaped.
    pub fn new(field: impl Into<String>, value: impl AsRef<str>, rule: impl Into<String>) -> Self {
        let value = value.as_ref();
        let mut shown: String = value.chars().take(MAX_SHOWN).flat_map(escape).collect();
        if value.chars().nth(MAX_SHOWN).is_some() {
            shown.push('…');
        }
        Self {
            field: field.into(),
            value: shown,
            rule: rule.into(),
        }
    }

    /// The same error with `outer.` put before its field.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => outer.to_owned(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() {
        (None, Some(c.escape_default()))
    } else {
        (Some(c), None)
    };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_unprintable_value_is_shown_short_and_escaped() {
        let e = Invalid::new("f", "x".repeat(500), "r");
        assert_eq!(e.value.chars().count(), 81);
        assert_eq!(Invalid::new("f", "a\nb", "r").to_string(), "f \"a\\nb\": r");
    }

    #[test]
    fn an_outer_field_goes_before_the_inner_one() {
        assert_eq!(
            Invalid::new("labels", "", "").within("connection").field,
            "connection.labels"
        );
        assert_eq!(Invalid::new("[0]", "", "").within("routes").field, "routes[0]");
    }
}
