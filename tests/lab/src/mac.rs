//! Hardware addresses.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result};

/// A hardware address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A locally administered unicast address that holds `n`.
    #[must_use]
    pub const fn numbered(n: u32) -> Self {
        let [a, b, c, d] = n.to_be_bytes();
        Self([0x02, 0x7e, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<u8> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<_, _>>()
            .with_context(|| format!("hardware address {text:?}"))?;
        let octets = parts
            .try_into()
            .ok()
            .with_context(|| format!("hardware address {text:?}"))?;
        Ok(Self(octets))
    }
}
