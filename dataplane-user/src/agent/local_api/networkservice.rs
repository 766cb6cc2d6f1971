//! NSM's Request and Close.

use tieline_proto::{
    connection::{Connection, Mechanism},
    networkservice::{NetworkServiceRequest, network_service_server::NetworkService},
    tieline::agent::v1::{
        CloseConnectionRequest, RequestConnectionRequest, agent_service_client::AgentServiceClient,
    },
};
use tonic::{Request, Response, Status};

use super::{Api, MAX_ANSWER_BYTES, attest, caller, keeper, workload::Purpose};
use crate::agent::{convert::MAX_ID_LEN, error::CallError};

/// The parameter of a mechanism that names a network namespace, in NSM's spelling.
const INODE_URL: &str = "inodeURL";

#[tonic::async_trait]
impl NetworkService for Api {
    async fn request(&self, request: Request<NetworkServiceRequest>) -> Result<Response<Connection>, Status> {
        self.answer("NetworkService/Request", async {
            let (caller, keeper) = (caller(&request)?, keeper(request.metadata())?);
            let request = request.into_inner();
            check_id(request.connection.as_ref())?;
            let own = request
                .connection
                .iter()
                .filter_map(|connection| connection.mechanism.as_ref());
            let urls = inode_urls(own.chain(&request.mechanism_preferences));
            let attestor = self.attestor.clone();
            let workload = attest(caller, move |peer| {
                attestor.client(peer, urls.iter().map(String::as_str), Purpose::Attach)
            })
            .await?;
            let message = RequestConnectionRequest {
                workload: Some(workload),
                request: Some(request),
                keeper: keeper.into(),
            };
            let mut control = self.control();
            self.ask(message, |message| control.request_connection(message))
                .await
        })
        .await
    }

    async fn close(&self, request: Request<Connection>) -> Result<Response<()>, Status> {
        self.answer("NetworkService/Close", async {
            let caller = caller(&request)?;
            let connection = request.into_inner();
            check_id(Some(&connection))?;
            let urls = inode_urls(connection.mechanism.iter());
            let attestor = self.attestor.clone();
            let workload = attest(caller, move |peer| {
                attestor.client(peer, urls.iter().map(String::as_str), Purpose::Release)
            })
            .await?;
            let message = CloseConnectionRequest {
                workload: Some(workload),
                connection: Some(connection),
            };
            let mut control = self.control();
            self.ask(message, |message| control.close_connection(message))
                .await
        })
        .await
    }
}

impl Api {
    /// Control's service for agents.
    pub(super) fn control(&self) -> AgentServiceClient<tonic::transport::Channel> {
        AgentServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

/// Control checks everything else; without an id not even a log line could say what this is about.
fn check_id(connection: Option<&Connection>) -> Result<(), CallError> {
    let invalid = |field, value: &str, rule| {
        Err(CallError::Invalid {
            field,
            value: value.to_owned(),
            rule,
        })
    };
    let Some(connection) = connection else {
        return invalid("connection", "", "must be set");
    };
    let id = &connection.id;
    if id.is_empty() || id.len() > MAX_ID_LEN || id.contains(char::is_control) {
        return invalid(
            "connection.id",
            id,
            "must have 1 to 128 bytes and no control characters",
        );
    }
    Ok(())
}

fn inode_urls<'a>(mechanisms: impl Iterator<Item = &'a Mechanism>) -> Vec<String> {
    mechanisms
        .filter_map(|mechanism| mechanism.parameters.get(INODE_URL).cloned())
        .collect()
}
