//! The registry state machine: services, endpoints, connections, leases and address allocation, without IO or clock.
