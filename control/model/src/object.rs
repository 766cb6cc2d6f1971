//! The objects that operators declare.

use crate::{NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, text::word_form};

/// An object that operators declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A service.
    NetworkService(NetworkService),
    /// An endpoint without lease.
    NetworkServiceEndpoint(NetworkServiceEndpoint),
    /// A rule between them.
    NetworkServiceWiring(NetworkServiceWiring),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::NetworkService(_) => ObjectKind::NetworkService,
            Self::NetworkServiceEndpoint(_) => ObjectKind::NetworkServiceEndpoint,
            Self::NetworkServiceWiring(_) => ObjectKind::NetworkServiceWiring,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NetworkService(service) => service.name().as_str(),
            Self::NetworkServiceEndpoint(endpoint) => endpoint.name().as_str(),
            Self::NetworkServiceWiring(wiring) => wiring.name().as_str(),
        }
    }
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// [`NetworkService`].
    NetworkService,
    /// [`NetworkServiceEndpoint`].
    NetworkServiceEndpoint,
    /// [`NetworkServiceWiring`].
    NetworkServiceWiring,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [
        Self::NetworkService,
        Self::NetworkServiceEndpoint,
        Self::NetworkServiceWiring,
    ];

    /// The word in files and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkService => "NetworkService",
            Self::NetworkServiceEndpoint => "NetworkServiceEndpoint",
            Self::NetworkServiceWiring => "NetworkServiceWiring",
        }
    }
}

word_form!(ObjectKind, "kind", "a kind");
