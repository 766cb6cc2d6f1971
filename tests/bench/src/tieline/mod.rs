//! A whole Tieline node, started as a user starts it and asked as a workload and an operator ask it.

mod api;
mod channel;
mod control;
mod crowd;
pub(crate) mod datapath;
mod first;
pub(crate) mod memory;
mod monitor;
mod node;
mod plane;

pub(crate) use api::{Api, Wire};
pub(crate) use control::{Control, service};
pub(crate) use crowd::{Crowd, IN_FLIGHT};
pub(crate) use first::first_packet_ms;
pub(crate) use monitor::Monitor;
pub(crate) use node::Node;
pub(crate) use plane::ControlProcess;
