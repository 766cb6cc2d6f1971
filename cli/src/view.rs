//! What is shown: the API's messages as rows, texts and objects. Field names are those of the API.

mod connection;
mod endpoint;
mod node;
mod service;
mod status;
mod steering;
#[cfg(test)]
mod tests;
mod text;
mod wire;
mod wiring;

pub(crate) use connection::{BranchPlacement, ConnectionView, EventView, lease_end};
pub(crate) use endpoint::{EndpointView, RegistrationView};
pub(crate) use node::NodeRow;
pub(crate) use service::ServiceView;
pub(crate) use status::{ControlView, StatusView};
pub(crate) use steering::{ExplainView, MoveView};
pub(crate) use wire::WireView;
pub(crate) use wiring::WiringView;
