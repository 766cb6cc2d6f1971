//! Validated types of the control plane: services, endpoints, connections, labels, addresses, and the conversions at its border.
