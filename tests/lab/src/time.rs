//! Waiting: always for a condition and with a bound, stretched on slow machines.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Environment variable: factor by which every time limit is multiplied (for emulated or loaded machines).
pub const ENV_SLOW: &str = "TIELINE_TEST_SLOW";

/// `limit` times the factor of [`ENV_SLOW`].
#[must_use]
pub fn slow(limit: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = *FACTOR.get_or_init(|| {
        let given = std::env::var(ENV_SLOW).ok().and_then(|value| value.parse().ok());
        given
            .filter(|factor| (0.1..=1000.0).contains(factor))
            .unwrap_or(1.0)
    });
    limit.mul_f64(factor)
}

/// Repeats `probe` until it gives a value, for at most `limit` (stretched by [`slow`]).
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = slow(limit);
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits until `holds` is true, for at most `limit` (stretched by [`slow`]).
pub fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    within(limit, what, || Ok(holds()?.then_some(())))
}
