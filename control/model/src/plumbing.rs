//! How an endpoint stands in the path of a connection.

use serde::{Deserialize, Serialize};

use crate::text::word_form;

/// What an endpoint does with the wires that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Plumbing {
    /// The wire ends there.
    Endpoint,
    /// It routes packets between an inside and an outside interface.
    Gateway,
    /// It carries frames between an inside and an outside interface and has no address on them.
    Transparent,
}

impl Plumbing {
    /// Every kind of plumbing.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Gateway, Self::Transparent];

    /// The word in files and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Gateway => "gateway",
            Self::Transparent => "transparent",
        }
    }

    /// Whether a path goes on behind an endpoint that is plumbed so.
    #[must_use]
    pub fn is_passthrough(self) -> bool {
        self != Self::Endpoint
    }
}

word_form!(Plumbing, "plumbing", "a plumbing");
