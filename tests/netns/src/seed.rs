//! Where randomness comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// Environment variable: repeats a run.
const ENV_SEED: &str = "TIELINE_TEST_SEED";

/// The seed of this run: that of `TIELINE_TEST_SEED`, else a new one; printed, so that a failure can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var(ENV_SEED).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs() ^ u64::from(now.subsec_nanos())
    });
    eprintln!("{ENV_SEED}={seed}");
    seed
}
