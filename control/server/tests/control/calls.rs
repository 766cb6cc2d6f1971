//! What operators and workloads ask.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tieline_proto::connection::{Connection, Path, PathSegment};
use tieline_proto::networkservice::NetworkServiceRequest;
use tieline_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tieline_proto::tieline::admin::v1 as admin;
use tieline_proto::tieline::agent::v1 as proto;
use tonic::Status;

use crate::agent::FakeAgent;
use crate::world::World;

/// A workload of `node` in the namespace `netns`.
pub(crate) fn workload(node: &str, netns: u64) -> proto::Workload {
    proto::Workload {
        node: node.to_owned(),
        uid: 1000,
        pid: 1,
        netns: Some(proto::NetworkNamespace {
            path: format!("/run/netns/w{netns}"),
            device: 4,
            inode: netns,
        }),
        cgroup: String::new(),
        operator: false,
        ..proto::Workload::default()
    }
}

/// A request of client number `client` of node `n1` for a connection of `id` to the service `s`.
pub(crate) fn request(id: &str, client: u64) -> proto::RequestConnectionRequest {
    let connection = Connection {
        id: id.to_owned(),
        network_service: "s".to_owned(),
        labels: HashMap::from([("app".to_owned(), "test".to_owned())]),
        ..Connection::default()
    };
    proto::RequestConnectionRequest {
        workload: Some(workload("n1", 1000 + client)),
        request: Some(NetworkServiceRequest {
            connection: Some(connection),
            mechanism_preferences: Vec::new(),
        }),
        keeper: proto::Keeper::Client.into(),
    }
}

/// The same, to end after `lifetime`.
pub(crate) fn request_for(id: &str, client: u64, lifetime: Duration) -> proto::RequestConnectionRequest {
    let mut message = request(id, client);
    let expires = Some((SystemTime::now() + lifetime).into());
    let segment = PathSegment {
        name: "client".to_owned(),
        expires,
        ..PathSegment::default()
    };
    let connection = message.request.as_mut().unwrap().connection.as_mut().unwrap();
    connection.path = Some(Path {
        index: 0,
        path_segments: vec![segment],
    });
    message
}

pub(crate) fn close(id: &str, client: u64) -> proto::CloseConnectionRequest {
    proto::CloseConnectionRequest {
        workload: Some(workload("n1", 1000 + client)),
        connection: Some(Connection {
            id: id.to_owned(),
            ..Connection::default()
        }),
    }
}

pub(crate) fn registration(name: &str, netns: u64) -> proto::RegisterEndpointRequest {
    let expiration_time = Some((SystemTime::now() + Duration::from_secs(3600)).into());
    proto::RegisterEndpointRequest {
        workload: Some(workload("n1", netns)),
        endpoint: Some(NetworkServiceEndpoint {
            name: name.to_owned(),
            network_service_names: vec!["s".to_owned()],
            expiration_time,
            ..NetworkServiceEndpoint::default()
        }),
        interface: String::new(),
        keeper: proto::Keeper::Client.into(),
    }
}

pub(crate) fn service(name: &str) -> admin::Object {
    let service = NetworkService {
        name: name.to_owned(),
        payload: "IP".to_owned(),
        ..NetworkService::default()
    };
    let service = admin::NetworkService {
        service: Some(service),
        ..admin::NetworkService::default()
    };
    admin::Object {
        object: Some(admin::object::Object::NetworkService(service)),
    }
}

pub(crate) fn apply(objects: Vec<admin::Object>) -> admin::ApplyRequest {
    admin::ApplyRequest {
        objects,
        dry_run: false,
    }
}

impl World {
    /// Declares the service `s` and registers one endpoint of node `n1` for it; the node's agent must be there.
    pub(crate) async fn offer(&self) {
        self.admin().await.apply(apply(vec![service("s")])).await.unwrap();
        self.agents()
            .await
            .register_endpoint(registration("e", 1))
            .await
            .unwrap();
    }

    /// A world's usual beginning: node `n1` is there and offers `s`.
    pub(crate) async fn with_node(&self) -> FakeAgent {
        let (agent, snapshot) = FakeAgent::join(self, "n1", 0).await;
        agent.ack(snapshot.generation).await;
        self.offer().await;
        agent
    }
}

/// A detail of a status.
pub(crate) fn detail<'a>(status: &'a Status, key: &str) -> &'a str {
    status
        .metadata()
        .get(key)
        .map_or("", |text| text.to_str().unwrap())
}
