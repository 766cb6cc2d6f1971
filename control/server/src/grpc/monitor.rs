//! NSM's `MonitorConnection`.

use std::collections::HashMap;

use prost::Message as _;
use tieline_model::MonitorScope;
use tieline_proto::connection::monitor_connection_server::MonitorConnection;
use tieline_proto::connection::{Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector};
use tieline_registry::{ChangeKind, RegistryEvent};
use tonic::{Request, Response, Status};

use super::Api;
use super::stream::{Answers, answers};
use crate::engine::Topic;
use crate::failure::Failure;

/// How many bytes of connections share a message: well below the 4 MiB that gRPC clients read by default.
const EVENT_BYTES: usize = 1024 * 1024;

#[tonic::async_trait]
impl MonitorConnection for Api {
    type MonitorConnectionsStream = Answers<ConnectionEvent>;

    async fn monitor_connections(
        &self,
        request: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let outcome = self.monitor(request.into_inner()).await;
        self.answer("MonitorConnections", outcome)
    }
}

impl Api {
    async fn monitor(&self, selector: MonitorScopeSelector) -> Result<Answers<ConnectionEvent>, Failure> {
        let scope = MonitorScope::try_from(selector)?;
        let (present, inlet) = self.engine.watch(Topic::Connections(scope)).await?;
        let present = present
            .into_iter()
            .filter_map(connection_of)
            .map(|(_, connection)| connection);
        Ok(answers(initial_transfer(present), inlet, |event| {
            let (kind, connection) = connection_of(event)?;
            let kind = match kind {
                ChangeKind::Update => ConnectionEventType::Update,
                ChangeKind::Delete => ConnectionEventType::Delete,
            };
            Some(event_of(
                kind,
                HashMap::from([(connection.id.clone(), connection)]),
            ))
        }))
    }
}

/// One INITIAL_STATE_TRANSFER, followed by UPDATEs if one message would be too large for gRPC clients. It comes also
/// when there is no connection, so that the client knows that there is none.
fn initial_transfer(connections: impl Iterator<Item = Connection>) -> Vec<ConnectionEvent> {
    let (mut events, mut chunk, mut bytes) = (Vec::new(), HashMap::new(), 0);
    let kind = |events: &Vec<ConnectionEvent>| match events.is_empty() {
        true => ConnectionEventType::InitialStateTransfer,
        false => ConnectionEventType::Update,
    };
    for connection in connections {
        bytes += connection.encoded_len() + connection.id.len();
        chunk.insert(connection.id.clone(), connection);
        if bytes >= EVENT_BYTES {
            events.push(event_of(kind(&events), std::mem::take(&mut chunk)));
            bytes = 0;
        }
    }
    if events.is_empty() || !chunk.is_empty() {
        events.push(event_of(kind(&events), chunk));
    }
    events
}

fn event_of(kind: ConnectionEventType, connections: HashMap<String, Connection>) -> ConnectionEvent {
    ConnectionEvent {
        r#type: kind.into(),
        connections,
    }
}

fn connection_of(event: RegistryEvent) -> Option<(ChangeKind, Connection)> {
    match event {
        RegistryEvent::Connection(kind, connection) => Some((kind, Connection::from(&*connection))),
        RegistryEvent::Service(..) | RegistryEvent::Endpoint(..) | RegistryEvent::Wiring(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(count: usize, bytes: usize) -> impl Iterator<Item = Connection> {
        (0..count).map(move |n| Connection {
            id: format!("c{n}"),
            network_service: "s".repeat(bytes),
            ..Connection::default()
        })
    }

    #[test]
    fn the_initial_state_is_one_transfer_and_comes_in_messages_that_any_client_reads() {
        let none = initial_transfer(connections(0, 0));
        assert_eq!(
            (none.len(), none[0].r#type()),
            (1, ConnectionEventType::InitialStateTransfer)
        );

        let many = initial_transfer(connections(5000, 1000));
        assert!(many.len() > 1 && many.iter().all(|event| event.encoded_len() < 4 * 1024 * 1024));
        let kinds: Vec<_> = many.iter().map(ConnectionEvent::r#type).collect();
        assert_eq!(kinds[0], ConnectionEventType::InitialStateTransfer);
        assert!(kinds[1..].iter().all(|kind| *kind == ConnectionEventType::Update));
        assert_eq!(
            many.iter().map(|event| event.connections.len()).sum::<usize>(),
            5000
        );
    }
}
