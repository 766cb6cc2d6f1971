//! The control plane process: gRPC servers, the engine that owns the registry, agent sessions.
