//! Reading packet headers out of a byte slice.
