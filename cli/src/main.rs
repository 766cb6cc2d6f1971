//! Tieline: vWires to network services, forwarded by the kernel.
fn main() {}
