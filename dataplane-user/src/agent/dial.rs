//! The way to control, and what goes wrong on it.

use tieline_proto::dial;
pub(crate) use tieline_proto::dial::{back_off, describe, is_transport};
use tonic::transport::Channel;

use super::{config::ControlAddress, error::AgentError};

/// A channel to control. It connects at its first use.
pub(crate) fn channel(address: &ControlAddress) -> Result<Channel, AgentError> {
    let failed = |source| AgentError::Dial {
        address: address.to_string(),
        source,
    };
    dial::channel(&address.to_string()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
