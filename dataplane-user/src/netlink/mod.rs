//! rtnetlink, synchronous and in batches: many requests in one message to the kernel, one answer for each.
//!
//! The kernel carries out one message buffer whole before the system call returns, even if the process is killed
//! meanwhile: what must not be separated (an interface and its mark) is sent in one buffer.

mod arrival;
pub(crate) mod inner;
pub(crate) mod link;
pub(crate) mod monitor;
mod routing;
pub(crate) mod rule;
pub(crate) mod socket;

/// Marks addresses, routes and neighbour entries as ours: `ifa_proto`, `rtm_protocol`, `NDA_PROTOCOL`. The number is
/// in the range that rtnetlink leaves to user space and is not in iproute2's table.
pub(crate) const PROTOCOL: u8 = 0x74;
