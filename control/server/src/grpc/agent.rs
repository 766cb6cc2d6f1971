//! `tieline.agent.v1.AgentService`: the agents' sessions, and the calls of workloads that agents pass on.

use std::time::Duration;

use tieline_model::convert::{connection_request, registration};
use tieline_model::{ConnectionId, EndpointName, RegistryDomain, Workload};
use tieline_proto::tieline::agent::v1 as proto;
use tieline_proto::tieline::agent::v1::agent_service_server::AgentService;
use tieline_proto::{connection, registry};
use tieline_registry::{Caller, Command};
use tonic::{Request, Response, Status, Streaming};

use super::session::serve;
use super::stream::Answers;
use super::{Api, MAX_MESSAGE_BYTES, required};
use crate::failure::Failure;

/// How long a session may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

#[tonic::async_trait]
impl AgentService for Api {
    type SessionStream = Answers<proto::SessionDown>;

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let outcome = self.begin(request.into_inner()).await;
        self.answer("Session", outcome)
    }

    async fn request_connection(
        &self,
        request: Request<proto::RequestConnectionRequest>,
    ) -> Result<Response<connection::Connection>, Status> {
        let outcome = self.request(request.into_inner()).await;
        self.answer("RequestConnection", outcome)
    }

    async fn close_connection(
        &self,
        request: Request<proto::CloseConnectionRequest>,
    ) -> Result<Response<()>, Status> {
        let outcome = self.close(request.into_inner()).await;
        self.answer("CloseConnection", outcome)
    }

    async fn register_endpoint(
        &self,
        request: Request<proto::RegisterEndpointRequest>,
    ) -> Result<Response<registry::NetworkServiceEndpoint>, Status> {
        let outcome = self.register(request.into_inner()).await;
        self.answer("RegisterEndpoint", outcome)
    }

    async fn unregister_endpoint(
        &self,
        request: Request<proto::UnregisterEndpointRequest>,
    ) -> Result<Response<()>, Status> {
        let outcome = self.unregister(request.into_inner()).await;
        self.answer("UnregisterEndpoint", outcome)
    }
}

impl Api {
    async fn begin(
        &self,
        mut up: Streaming<proto::SessionUp>,
    ) -> Result<Answers<proto::SessionDown>, Failure> {
        let missing = |got| Failure::NoHello {
            got,
            within: HELLO_WITHIN,
        };
        let first = match tokio::time::timeout(HELLO_WITHIN, up.message()).await {
            Err(_) => return Err(missing("nothing")),
            Ok(Err(_) | Ok(None)) => return Err(missing("the end of the stream")),
            Ok(Ok(Some(first))) => first.message,
        };
        let hello = match first {
            Some(proto::session_up::Message::Hello(hello)) => hello,
            Some(proto::session_up::Message::Ack(_)) => return Err(missing("Ack")),
            Some(proto::session_up::Message::Observation(_)) => return Err(missing("Observation")),
            Some(proto::session_up::Message::KeepAlive(_)) => return Err(missing("KeepAlive")),
            None => return Err(missing("an empty message")),
        };
        serve(&self.engine, hello, up).await
    }

    async fn request(
        &self,
        message: proto::RequestConnectionRequest,
    ) -> Result<connection::Connection, Failure> {
        limit(&message)?;
        let (caller, request) = connection_request(message)?;
        let connection = self.connect(caller, request).await?;
        Ok(connection::Connection::from(&*connection))
    }

    async fn close(&self, message: proto::CloseConnectionRequest) -> Result<(), Failure> {
        limit(&message)?;
        let caller = Caller::Workload(workload(message.workload)?);
        let id = ConnectionId::parse("connection.id", &required("connection", message.connection)?.id)?;
        self.engine.close(caller, id).await
    }

    async fn register(
        &self,
        message: proto::RegisterEndpointRequest,
    ) -> Result<registry::NetworkServiceEndpoint, Failure> {
        limit(&message)?;
        let (caller, registration) = registration(message)?;
        let endpoint = self.register_workload(caller, registration).await?;
        Ok(registry::NetworkServiceEndpoint::from(&*endpoint))
    }

    async fn unregister(&self, message: proto::UnregisterEndpointRequest) -> Result<(), Failure> {
        limit(&message)?;
        let caller = Caller::Workload(workload(message.workload)?);
        let name = EndpointName::parse("endpoint.name", &required("endpoint", message.endpoint)?.name)?;
        let is_own = name.domain() == self.domains.own().map(RegistryDomain::as_str);
        let name = if is_own { name.local() } else { name };
        self.engine
            .execute(Command::UnregisterEndpoint { caller, name })
            .await
            .map(drop)
    }
}

fn workload(message: Option<proto::Workload>) -> Result<Workload, Failure> {
    Ok(Workload::try_from(required("workload", message)?)?)
}

/// Only sessions may use the service's large messages.
fn limit(message: &impl prost::Message) -> Result<(), Failure> {
    let bytes = message.encoded_len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(Failure::TooLarge {
            bytes,
            most: MAX_MESSAGE_BYTES,
        });
    }
    Ok(())
}
