//! Test floor 3: nodes, workloads and real traffic in network namespaces.
