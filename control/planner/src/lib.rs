//! Selection of endpoints and lowering of connections to per-node plans: pure.
