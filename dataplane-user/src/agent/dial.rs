//! The way to control: one HTTP/2 connection for everything, made when it is needed and made again when it breaks.

use std::{error::Error, fmt::Write as _, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{config::ControlAddress, error::AgentError};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The first pause between two attempts, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How deep a transport error is unfolded.
const MAX_CAUSES: usize = 8;

/// A channel to control. It connects at its first use.
pub(crate) fn channel(address: &ControlAddress) -> Result<Channel, AgentError> {
    let failed = |source| AgentError::Dial {
        address: address.to_string(),
        source,
    };
    let endpoint = Endpoint::from_shared(address.to_string()).map_err(failed)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// How long to wait before attempt number `attempt` (from 0): doubling, bounded, and between half and the whole of
/// it, so that the agents of a cluster do not come back all at once. `chance` lies in 0..1.
pub(crate) fn back_off(attempt: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt));
    doubled
        .min(LONGEST_PAUSE)
        .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// A status with the causes that tonic keeps out of its message ("tcp connect error", "connection refused").
pub(crate) fn describe(status: &Status) -> String {
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
pub(crate) fn is_transport(status: &Status) -> bool {
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
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(back_off(0, 1.0), FIRST_PAUSE);
        assert_eq!(back_off(1, 1.0), FIRST_PAUSE * 2);
        assert_eq!(back_off(u32::MAX, 1.0), LONGEST_PAUSE);
    }

    proptest! {
        #[test]
        fn no_pause_is_shorter_than_half_the_first(attempt: u32, chance in 0.0..1.0_f64) {
            let pause = back_off(attempt, chance);
            prop_assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_described_by_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/nobody.sock", folder.path().display())
            .parse()
            .unwrap();
        let mut client = tieline_proto::tieline::agent::v1::agent_service_client::AgentServiceClient::new(
            channel(&address).unwrap(),
        );
        let status = client.session(tokio_stream::empty()).await.unwrap_err();
        assert!(is_transport(&status), "{status:?}");
        assert!(
            describe(&status).contains("No such file"),
            "{}",
            describe(&status)
        );
    }
}
