//! Benchmarks: Tieline beside its peers in one run.
fn main() {}
