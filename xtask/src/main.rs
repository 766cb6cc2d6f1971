//! The developers' door: toolchain, build, tests, verifier, kernels, bench, ci.
fn main() {}
