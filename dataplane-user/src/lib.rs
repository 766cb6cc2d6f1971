//! The node agent: loads the kernel programs, keeps maps and interfaces as planned, serves workloads.
