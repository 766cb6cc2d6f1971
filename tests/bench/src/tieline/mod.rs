//! A whole Tieline node, started as a user starts it and asked as a workload asks it.

mod api;
pub(crate) mod datapath;
mod node;

pub(crate) use api::{Api, Wire};
pub(crate) use node::Node;
