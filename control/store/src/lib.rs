//! The store: revisions, compare-and-set transactions, watches and leases; redb and memory behind one trait.
