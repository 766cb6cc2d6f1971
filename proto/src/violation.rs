//! How a refusal that is about one field travels: as the sentence `field "value": rule` for people, and as three
//! metadata entries for programs, percent-encoded as gRPC's own message is.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

const FIELD: &str = "tieline-field";
const VALUE: &str = "tieline-value";
const RULE: &str = "tieline-rule";

/// What gRPC encodes in its own message: everything but printable ASCII, and `%` itself.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Which field of the input a rule refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, in the words of the message it is in.
    pub field: String,
    /// What it held.
    pub value: String,
    /// What it must be, and what to do.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": {}", self.field, self.value, self.rule)
    }
}

impl Violation {
    /// From a status's metadata, or from its message where a proxy has dropped the metadata.
    #[must_use]
    pub fn of_status(status: &Status) -> Option<Self> {
        let text = |key| {
            let encoded = status.metadata().get(key)?.as_bytes();
            Some(percent_decode(encoded).decode_utf8_lossy().into_owned())
        };
        let from_metadata = || {
            Some(Self {
                field: text(FIELD)?,
                value: text(VALUE)?,
                rule: text(RULE)?,
            })
        };
        from_metadata().or_else(|| Self::of_message(status.message()))
    }

    /// The parts of `field "value": rule`, if the message has that form.
    #[must_use]
    pub fn of_message(message: &str) -> Option<Self> {
        let (field, rest) = message.split_once(" \"")?;
        let (value, rule) = rest.split_once("\": ")?;
        let is_field = !field.is_empty() && !field.contains(char::is_whitespace);
        is_field.then(|| Self {
            field: field.to_owned(),
            value: value.to_owned(),
            rule: rule.to_owned(),
        })
    }

    fn metadata(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, text) in [(FIELD, &self.field), (VALUE, &self.value), (RULE, &self.rule)] {
            if let Ok(text) = MetadataValue::try_from(utf8_percent_encode(text, ENCODED).to_string()) {
                metadata.insert(key, text);
            }
        }
        metadata
    }
}

/// A status with this sentence; if the sentence is a [`Violation`]'s, its parts are in the metadata as well.
#[must_use]
pub fn status(code: Code, message: String) -> Status {
    let metadata = Violation::of_message(&message).map_or_else(MetadataMap::new, |found| found.metadata());
    Status::with_metadata(code, message, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_comes_back_from_the_metadata_and_from_the_message() {
        let violation = Violation {
            field: "connection.labels[app]".to_owned(),
            value: "fünf 100%".to_owned(),
            rule: "letters only: choose others".to_owned(),
        };
        let status = status(Code::InvalidArgument, violation.to_string());
        let value = status.metadata().get(VALUE).unwrap().to_str().unwrap();
        assert_eq!(value, "f%C3%BCnf 100%25");
        assert_eq!(Violation::of_status(&status), Some(violation.clone()));
        let bare = Status::new(Code::InvalidArgument, status.message());
        assert_eq!(Violation::of_status(&bare), Some(violation));
    }

    #[test]
    fn a_sentence_about_no_field_is_no_violation() {
        let status = status(Code::Unavailable, "the store is closed: \"memory\"".to_owned());
        assert!(status.metadata().is_empty());
        assert_eq!(Violation::of_status(&status), None);
    }
}
