//! How a caller of a node's local API says who keeps the lease of what it asks for: by a header of the call, because NSM's
//! messages have no word for it.

/// The header of `NetworkService/Request` and `NetworkServiceEndpointRegistry/Register`.
pub const HEADER: &str = "tieline-lease";
/// Its value when the caller refreshes the lease itself. So it is without the header, too: NSM's clients know no other way.
pub const CLIENT: &str = "client";
/// Its value when the node's agent shall keep the lease for as long as the workload's namespace is there.
pub const NODE: &str = "node";
