//! Which machine something is on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, text::text_form};

const MAX_LEN: usize = 64;

/// Names a running kernel: namespaces with equal identities on one machine are the same. It changes when the machine is
/// started again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

impl MachineId {
    /// Checks `value`; an error names `field`.
    pub fn parse(field: &str, value: &str) -> Result<Self, Invalid> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(1..=MAX_LEN).contains(&value.len()) || !value.bytes().all(plain) {
            let rule = format!("a machine's id has 1 to {MAX_LEN} letters, digits and \"-\"");
            return Err(Invalid::new(field, value, rule));
        }
        Ok(Self(value.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(MachineId, "machine");
