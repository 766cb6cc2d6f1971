//! The way to a control: one HTTP/2 connection for everything, made when it is needed and made again when it breaks.

use std::{error::Error as _, fmt::Write as _, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint, Error},
};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The first pause between two attempts, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How deep a transport error is unfolded.
const MAX_CAUSES: usize = 8;

/// A channel to the control at `unix:///PATH` or `http://HOST:PORT`. It connects at its first use.
pub fn channel(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// How long to wait before attempt number `attempt` (from 0): doubling, bounded, and between half and the whole of
/// it, so that those who lost one control do not come back all at once. `chance` lies in 0..1.
#[must_use]
pub fn back_off(attempt: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt));
    doubled
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// A status with the causes that tonic keeps out of its message ("tcp connect error", "connection refused").
#[must_use]
pub fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text.push_str(status.code().description());
    }
    let mut cause = status.source();
    for _ in 0..MAX_CAUSES {
        let Some(error) = cause else { break };
        let part = error.to_string();
        if !text.contains(&part) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {part}");
        }
        cause = error.source();
    }
    text
}

/// Whether a status was made by the transport and not by control: nobody has decided anything.
#[must_use]
pub fn is_transport(status: &Status) -> bool {
    let mut cause = status.source();
    for _ in 0..MAX_CAUSES {
        let Some(error) = cause else { return false };
        if error.is::<tonic::transport::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(back_off(0, 1.0), FIRST_PAUSE);
        assert_eq!(back_off(1, 1.0), FIRST_PAUSE * 2);
        assert_eq!(back_off(u32::MAX, 1.0), LONGEST_PAUSE);
        for (attempt, chance) in [(0, 0.0), (3, 0.3), (9, 1.0), (40, 0.7)] {
            let pause = back_off(attempt, chance);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        }
    }
}
