//! Network laboratory: namespaces, links, frames and traffic on this machine's kernel, cleaned up by guards.
