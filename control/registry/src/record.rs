//! What survives a restart: records of JSON under keys.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Refusal, Write};

/// The version of the records' form that this release writes.
pub const RECORD_VERSION: u32 = 1;

/// Why the records cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A later release wrote it.
    #[error(
        "record {key}: version {version}, this release reads up to {RECORD_VERSION}: start the release that wrote it"
    )]
    FutureVersion {
        /// The record's key.
        key: String,
        /// Its version.
        version: u32,
    },
    /// Not a record.
    #[error("record {key}: {message}: restore the store from a copy")]
    Malformed {
        /// The record's key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A key of a kind that this release does not know.
    #[error("record {key}: unknown kind: start the release that wrote it")]
    UnknownKey {
        /// The record's key.
        key: String,
    },
    /// It contradicts another record.
    #[error("record {key}: {conflict}: restore the store from a copy")]
    Conflict {
        /// The record's key.
        key: String,
        /// How.
        conflict: String,
    },
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] Refusal),
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    record: T,
}

/// Where a kind of record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// A NetworkService.
    Service,
    /// A NetworkServiceEndpoint.
    Endpoint,
    /// A NetworkServiceWiring.
    Wiring,
    /// A connection.
    Connection,
    /// A node's generation.
    Node,
    /// Addresses that another domain has.
    Reservation,
    /// How far an address prefix was given out.
    Addresses,
    /// Where a service's round robin stands.
    Turn,
    /// That an endpoint lives no more.
    Dead,
}

impl Record {
    const ALL: [Self; 9] = [
        Self::Service,
        Self::Endpoint,
        Self::Wiring,
        Self::Connection,
        Self::Node,
        Self::Reservation,
        Self::Addresses,
        Self::Turn,
        Self::Dead,
    ];

    /// The keys' common beginning.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Service => "service/",
            Self::Endpoint => "endpoint/",
            Self::Wiring => "wiring/",
            Self::Connection => "connection/",
            Self::Node => "node/",
            Self::Reservation => "reservation/",
            Self::Addresses => "addresses/",
            Self::Turn => "turn/",
            Self::Dead => "dead/",
        }
    }

    /// The key of `name`.
    #[must_use]
    pub fn key(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// The kind and name of a key.
    pub(crate) fn of(key: &str) -> Option<(Self, &str)> {
        Self::ALL
            .into_iter()
            .find_map(|kind| Some((kind, key.strip_prefix(kind.prefix())?)))
    }

    pub(crate) fn write<T: Serialize>(self, name: &str, record: &T) -> Result<Write, Refusal> {
        let key = self.key(name);
        match serde_json::to_vec(&Envelope {
            version: RECORD_VERSION,
            record,
        }) {
            Ok(value) => Ok(Write {
                key,
                value: Some(value),
            }),
            Err(e) => Err(Refusal::Encoding {
                key,
                message: e.to_string(),
            }),
        }
    }

    pub(crate) fn delete(self, name: &str) -> Write {
        Write {
            key: self.key(name),
            value: None,
        }
    }
}

/// Reads a record written by [`Record::write`].
pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RestoreError> {
    let malformed = |e: serde_json::Error| RestoreError::Malformed {
        key: key.to_owned(),
        message: e.to_string(),
    };
    let Header { version } = serde_json::from_slice(value).map_err(malformed)?;
    if version > RECORD_VERSION {
        return Err(RestoreError::FutureVersion {
            key: key.to_owned(),
            version,
        });
    }
    let envelope: Envelope<T> = serde_json::from_slice(value).map_err(malformed)?;
    Ok(envelope.record)
}
