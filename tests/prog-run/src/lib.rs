//! Test floor 2: frames in, verdict, frames out and counter deltas of each kernel program.
