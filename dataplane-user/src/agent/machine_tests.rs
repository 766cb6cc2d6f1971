//! An agent on the real kernel, with control on a socket and workloads in namespaces.

use std::{net::IpAddr, path::Path, sync::Arc};

use tieline_lab::{BpfFs, NetNs, PingPlan, PingReport, ping};
use tieline_proto::tieline::{
    admin::v1::{ListWiresRequest, WireStatus, node_service_client::NodeServiceClient},
    agent::v1 as proto,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::agent::{
    Agent, AgentError, Config,
    status::Status,
    testing::{ControlSession, FakeControl, config, leading_to, soon, until},
};

/// Two workloads and a place for the agent's files and pins.
struct Bench {
    client: NetNs,
    endpoint: NetNs,
    bpffs: BpfFs,
    folder: tempfile::TempDir,
    control: FakeControl,
}

/// A running agent.
struct Running {
    status: Arc<Status>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = FakeControl::start(folder.path());
        let [client, endpoint] = ["agc", "age"].map(|label| NetNs::new(label).unwrap());
        Self {
            client,
            endpoint,
            bpffs: BpfFs::new().unwrap(),
            folder,
            control,
        }
    }

    /// Starts an agent and gives it a plan.
    async fn start(&mut self, before: u64, plan: proto::Snapshot) -> (Running, ControlSession) {
        let config = Config {
            node: self.client.name().to_owned(),
            bpffs: self.bpffs.path().to_owned(),
            max_wires: 64,
            resync_interval: std::time::Duration::from_secs(3600),
            ..config(self.folder.path())
        };
        let (agent, _) = Agent::new(config).unwrap();
        let (status, shutdown) = (Arc::clone(&agent.status), CancellationToken::new());
        let task = tokio::spawn(agent.run(shutdown.clone()));
        let mut session = self.control.session().await;
        assert_eq!(session.hello().await.generation, before, "what the kernel has");
        let generation = plan.generation;
        session.snapshot(generation, plan.wires).await;
        assert_eq!(session.ack_ids().await, (generation, vec![]));
        (
            Running {
                status,
                shutdown,
                task,
            },
            session,
        )
    }

    fn plan(&self, generation: u64) -> proto::Snapshot {
        let end = |netns: &NetNs, own: u8, other: u8| proto::WireEnd {
            attachment: Some(proto::wire_end::Attachment::Veth(proto::VethEnd {
                netns: Some(network_namespace(netns)),
                name: "nsm-1".into(),
                mac: format!("02:00:00:00:00:{own:02x}"),
                addresses: vec![format!("10.9.0.{own}/32"), format!("fd09::{own}/128")],
                routes: [format!("10.9.0.{other}/32"), format!("fd09::{other}/128")]
                    .map(|prefix| proto::Route {
                        prefix,
                        next_hop: String::new(),
                    })
                    .into(),
                neighbours: [format!("10.9.0.{other}"), format!("fd09::{other}")]
                    .map(|ip| proto::Neighbour {
                        ip,
                        mac: format!("02:00:00:00:00:{other:02x}"),
                    })
                    .into(),
                ..proto::VethEnd::default()
            })),
        };
        let wire = proto::Wire {
            connection_id: "c1".into(),
            network_service: "gold".into(),
            payload: proto::Payload::Ip.into(),
            mtu: 1500,
            client: Some(end(&self.client, 1, 2)),
            branches: vec![leading_to(end(&self.endpoint, 2, 1))],
            ..proto::Wire::default()
        };
        proto::Snapshot {
            wires: vec![wire],
            generation,
            ..proto::Snapshot::default()
        }
    }

    fn ping(&self, address: &str) -> PingReport {
        let address: IpAddr = address.parse().unwrap();
        ping(&self.client, address, PingPlan::default()).unwrap()
    }

    fn interfaces(&self) -> Vec<String> {
        let names = self
            .client
            .net(|net| Ok(net.links()?.into_iter().map(|link| link.name).collect()));
        names.unwrap()
    }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        soon(self.task).await.unwrap().unwrap();
    }
}

fn network_namespace(netns: &NetNs) -> proto::NetworkNamespace {
    let (device, inode) = netns.id().unwrap();
    proto::NetworkNamespace {
        path: netns.path().display().to_string(),
        device,
        inode,
    }
}

async fn wires(folder: &Path) -> Vec<WireStatus> {
    let address = format!("unix://{}", folder.join("agent.sock").display());
    let channel = soon(Endpoint::from_shared(address).unwrap().connect())
        .await
        .unwrap();
    let answer = soon(NodeServiceClient::new(channel).list_wires(ListWiresRequest::default())).await;
    answer.unwrap().into_inner().wires
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_wire_carries_pings_and_outlives_the_agent() {
    let mut bench = Bench::new();
    let plan = bench.plan(1);
    let (agent, session) = bench.start(0, plan).await;
    for address in ["10.9.0.2", "fd09::2"] {
        bench.ping(address).assert_all_answered().unwrap();
    }
    let wire = wires(bench.folder.path()).await.remove(0);
    assert!(wire.forwarding && wire.error.is_empty());
    let endpoint = wire.branches[0].endpoint.clone().unwrap();
    let client = wire.client.unwrap();
    assert!(
        client.packets >= 6 && endpoint.packets >= 6,
        "{client:?} {endpoint:?}"
    );

    drop(session);
    agent.stop().await;
    bench.ping("10.9.0.2").assert_all_answered().unwrap();

    let plan = bench.plan(2);
    let (agent, session) = bench.start(1, plan).await;
    let adopted = wires(bench.folder.path()).await.remove(0).client.unwrap();
    assert_eq!(adopted.ifindex, client.ifindex, "adopted, not made anew");
    assert!(
        adopted.packets >= client.packets + 3,
        "counted while no agent ran: {adopted:?}"
    );
    bench.ping("fd09::2").assert_all_answered().unwrap();

    session
        .delta(proto::Delta {
            generation: 3,
            parent: 2,
            upsert: vec![],
            remove: vec!["c1".into()],
        })
        .await;
    until(|| agent.status.applied() == 3).await;
    assert_eq!(bench.interfaces(), ["lo"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_dies_is_reported_at_once() {
    let mut bench = Bench::new();
    let plan = bench.plan(1);
    let (agent, mut session) = bench.start(0, plan).await;
    let endpoint = std::mem::replace(&mut bench.endpoint, NetNs::new("age2").unwrap());
    endpoint.remove().unwrap();
    for (wire, kind) in [
        ("", proto::ObservationKind::EndpointDead),
        ("c1", proto::ObservationKind::WireLost),
    ] {
        let Some(proto::session_up::Message::Observation(seen)) = session.next().await else {
            panic!("an observation was due: the next full pass is an hour away");
        };
        assert_eq!((seen.connection_id.as_str(), seen.kind()), (wire, kind));
        assert_eq!(seen.endpoint, "gold-1");
    }
    session
        .delta(proto::Delta {
            generation: 2,
            parent: 1,
            upsert: vec![],
            remove: vec!["c1".into()],
        })
        .await;
    assert_eq!(session.ack_ids().await, (2, vec![]));
    assert_eq!(bench.interfaces(), ["lo"]);
    agent.stop().await;
}
