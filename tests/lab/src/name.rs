//! Names that say whose they are and collide with nobody's.

use std::sync::atomic::{AtomicU32, Ordering};

/// What every name begins with that a test gives to a kernel object.
pub const PREFIX: &str = "tl-";

/// `tl-LABEL-PID-N`, where N counts within this process.
#[must_use]
pub fn unique_name(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{label}-{}-{n}", std::process::id())
}

/// What [`unique_name`] begins with in this process, for each label: the mark by which leftovers are found.
pub(crate) fn is_of_this_process(name: &str) -> bool {
    let mut parts = name.rsplit('-');
    let _n = parts.next();
    name.starts_with(PREFIX) && parts.next() == Some(std::process::id().to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_recognised() {
        let (a, b) = (unique_name("with-dash"), unique_name("with-dash"));
        assert_ne!(a, b);
        assert!(is_of_this_process(&a));
        assert!(!is_of_this_process("tl-other-1-0"));
        assert!(!is_of_this_process("eth0"));
    }
}
