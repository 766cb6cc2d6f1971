//! The syntax of labels, the same for everybody who reads some: that of Kubernetes.

/// The longest prefix (`example.com` of `example.com/app`), in bytes.
pub const MAX_PREFIX_LEN: usize = 253;
/// The longest name and the longest value, in bytes.
pub const MAX_PART_LEN: usize = 63;
/// The most labels of one object.
pub const MAX_LABELS: usize = 64;

/// What [`key_is_valid`] asks for.
pub const KEY_RULE: &str = "a label key is [prefix/]name: the name has 1 to 63 letters, digits, \"-\", \"_\", \".\" and begins \
                            and ends with a letter or digit; the prefix is a DNS name of at most 253 characters";
/// What [`value_is_valid`] asks for.
pub const VALUE_RULE: &str = "a label value has at most 63 letters, digits, \"-\", \"_\", \".\" and begins and ends with a \
                              letter or digit, or is empty";

/// Whether `key` may be a label's key.
#[must_use]
pub fn key_is_valid(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => prefix_is_valid(prefix) && part_is_valid(name),
        None => part_is_valid(key),
    }
}

/// Whether `value` may be a label's value.
#[must_use]
pub fn value_is_valid(value: &str) -> bool {
    value.is_empty() || part_is_valid(value)
}

fn part_is_valid(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.len() <= MAX_PART_LEN
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn prefix_is_valid(prefix: &str) -> bool {
    let label = |part: &str| {
        let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(lower)
            && bytes.last().is_some_and(lower)
            && bytes.iter().all(|b| lower(b) || *b == b'-')
    };
    prefix.len() <= MAX_PREFIX_LEN && prefix.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_follow_kubernetes() {
        for good in ["app", "example.com/app", "A_b.c-d", "0"] {
            assert!(key_is_valid(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "-a", "a-", "a/b/c", "/a", "a/", "Ex.com/a", "a b", "ä", &long] {
            assert!(!key_is_valid(bad), "{bad}");
        }
        for (value, valid) in [
            ("", true),
            ("X.y_Z-1", true),
            ("-", false),
            ("b c", false),
            (&long, false),
        ] {
            assert_eq!(value_is_valid(value), valid, "{value}");
        }
    }
}
