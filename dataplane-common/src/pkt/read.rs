//! Reading by value out of a slice whose length is checked once per header.

use super::error::{Header, ParseError};

/// The first `needed` octets, which are a header, and what follows them.
pub(super) fn split(bytes: &[u8], header: Header, needed: usize) -> Result<(&[u8], &[u8]), ParseError> {
    bytes.split_at_checked(needed).ok_or(ParseError::Truncated {
        header,
        needed,
        available: bytes.len(),
    })
}

/// The `N` octets at `at`, or zeros behind the end: callers have split off the whole header before.
pub(super) fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let field = header.get(at..).and_then(<[u8]>::first_chunk);
    debug_assert!(
        field.is_some(),
        "field at {at} of a header of {} octets",
        header.len()
    );
    field.copied().unwrap_or([0; N])
}

/// The octet at `at`.
pub(super) fn octet(header: &[u8], at: usize) -> u8 {
    let [value] = array(header, at);
    value
}

/// The 16 bits at `at`, from network order.
pub(super) fn word(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(header, at))
}

/// The 32 bits at `at`, from network order.
pub(super) fn long(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(header, at))
}
