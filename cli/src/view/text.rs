//! Small pieces of text that the views share.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;

/// A map in the order of its keys: the same output every time.
pub(crate) fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

/// `a=1,b=2`, or a dash.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    or_dash(
        &labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(","),
    )
}

/// Parts with commas between, or a dash.
pub(crate) fn join(parts: &[String]) -> String {
    or_dash(&parts.join(","))
}

/// An empty cell would shift the eye to the next column.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

/// RFC 3339; empty if there is none.
pub(crate) fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// How long until then, in whole seconds: `9m 30s`, `expired`, or a dash for never.
pub(crate) fn remaining(time: Option<Timestamp>, now: SystemTime) -> String {
    let Some(time) = time.and_then(|time| SystemTime::try_from(time).ok()) else {
        return "-".to_owned();
    };
    match time.duration_since(now) {
        Ok(left) => humantime::format_duration(Duration::from_secs(left.as_secs())).to_string(),
        Err(_) => "expired".to_owned(),
    }
}

/// Who packets pass, in order.
pub(crate) fn path<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_is_in_whole_seconds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        assert_eq!(remaining(at(1570, 900_000_000), now), "9m 30s");
        assert_eq!(remaining(at(999, 0), now), "expired");
        assert_eq!(remaining(None, now), "-");
    }

    #[test]
    fn labels_are_sorted() {
        let map = HashMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        assert_eq!(labels(&sorted(map)), "a=1,b=2");
        assert_eq!(labels(&BTreeMap::new()), "-");
    }
}
