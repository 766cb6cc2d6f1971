//! The border to the API: messages in, validated values out, and back.
//!
//! `TryFrom` a message checks every rule; the fields in its errors are in the API's spelling. `From` a value gives the
//! message, and reading that message again gives the same value.

mod admin;
mod agent;
mod connection;
mod context;
mod domain;
mod registry;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use prost_types::Timestamp as ProtoTimestamp;

pub use admin::endpoint_status;
pub use agent::{connection_request, kept_endpoint, registration};
pub use connection::addresses_from;
pub use domain::{ranges_from, ranges_to};
pub use registry::endpoint_url;

use crate::{
    Invalid, Labels, MatchSelector, Route, Timestamp, limits::MAX_LABELS, net::parse_prefix,
    service::check_count,
};

/// The API's form of a moment.
#[must_use]
pub fn timestamp_to_proto(moment: Timestamp) -> ProtoTimestamp {
    let millis = moment.as_millis();
    ProtoTimestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// A moment of the API; what lies before 1970 is refused.
pub fn timestamp_from_proto(field: &str, moment: ProtoTimestamp) -> Result<Timestamp, Invalid> {
    let invalid = || {
        let value = format!("{} s {} ns", moment.seconds, moment.nanos);
        Invalid::new(
            field,
            value,
            "a moment after 1970-01-01, nanoseconds between 0 and 999999999",
        )
    };
    let seconds = u64::try_from(moment.seconds).map_err(|_| invalid())?;
    let nanos = u64::try_from(moment.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(invalid)?;
    let millis = seconds.checked_mul(1000).ok_or_else(invalid)?;
    Ok(Timestamp::from_millis(millis.saturating_add(nanos / 1_000_000)))
}

fn labels_from(field: &str, map: HashMap<String, String>) -> Result<Labels, Invalid> {
    check_count(field, map.len(), MAX_LABELS)?;
    Labels::parse(field, map.into_iter().collect::<BTreeMap<_, _>>())
}

fn labels_to(labels: &Labels) -> HashMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn match_selector_from(field: &str, map: HashMap<String, String>) -> Result<MatchSelector, Invalid> {
    check_count(field, map.len(), MAX_LABELS)?;
    MatchSelector::parse(field, map.into_iter().collect::<BTreeMap<_, _>>())
}

fn prefixes_from(field: &str, texts: &[String], most: usize) -> Result<Vec<IpNet>, Invalid> {
    check_count(field, texts.len(), most)?;
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| parse_prefix(&format!("{field}[{i}]"), text))
        .collect()
}

fn to_texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn next_hop_text(route: &Route) -> String {
    route.next_hop.map(|hop| hop.to_string()).unwrap_or_default()
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "", "required"))
}
