//! Leases that the node keeps: they need no refresh, outlast the agent for as long as control waits for it, and end with the
//! workload.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tieline_lab::{NetNs, UdpPlan, UdpStream, eventually, slow};
use tieline_proto::connection::ConnectionEventType;
use tieline_tests_netns::{Api, Mode, Node, endpoint, netns_url, request, service};

const SERVICE: &str = "gold-network";

/// A node with a service and an endpoint that the node keeps, and a client.
struct Stage {
    node: Node,
    api: Api,
    client: NetNs,
    gateway: NetNs,
}

impl Stage {
    fn new(node: Node) -> Self {
        let api = node.api();
        let [client, gateway] = ["client", "gateway"].map(|label| NetNs::new(label).unwrap());
        api.apply(service(SERVICE, "IP")).unwrap();
        api.register_kept(endpoint("gateway", SERVICE, &netns_url(&gateway)))
            .unwrap();
        Self {
            node,
            api,
            client,
            gateway,
        }
    }

    fn request(&self, id: &str, netns: &NetNs) -> tieline_proto::connection::Connection {
        let request = request(id, SERVICE, &netns_url(netns));
        self.api.request_kept(request).unwrap()
    }

    /// Connections and endpoints, by name.
    fn there(&self) -> Vec<String> {
        let connections = self.api.connections().unwrap().into_iter();
        let connections = connections.map(|one| one.connection.unwrap().id);
        connections.chain(self.api.endpoints().unwrap()).collect()
    }
}

fn far_address(connection: &tieline_proto::connection::Connection) -> SocketAddr {
    let context = connection.context.as_ref().unwrap().ip_context.as_ref().unwrap();
    let address: ipnet::IpNet = context.dst_ip_addrs[0].parse().unwrap();
    SocketAddr::new(address.addr(), 7000)
}

#[test]
fn a_client_that_vanishes_is_closed_at_once_and_nobody_else() {
    let stage = Stage::new(Node::start("leases", Mode::Whole).unwrap());
    let doomed = NetNs::new("doomed").unwrap();
    let stays = stage.request("stays", &stage.client);
    stage.request("goes", &doomed);
    let monitor = stage.api.monitor().unwrap();
    monitor.wait_until("both", |all| all.len() == 2).unwrap();
    let stream = UdpStream::start(
        &stage.client,
        &stage.gateway,
        far_address(&stays),
        UdpPlan::default(),
    )
    .unwrap();
    let begun = Instant::now();
    doomed.remove().unwrap();
    monitor
        .wait_until("the client to be closed", |all| !all.contains_key("goes"))
        .unwrap();
    let took = begun.elapsed();
    assert!(took < slow(Duration::from_secs(3)), "it took {took:?}");
    assert!(
        monitor
            .events()
            .iter()
            .any(|event| event.r#type() == ConnectionEventType::Delete),
        "it is told as gone, not only as down"
    );
    assert_eq!(stage.there(), ["stays", "gateway"]);
    eventually(slow(Duration::from_secs(5)), "its wire to go", || {
        Ok(stage.node.kernel()?.assert_whole(1).is_ok())
    })
    .unwrap();
    stream.finish().unwrap().assert_perfect().unwrap();
}

#[test]
fn an_endpoint_that_vanishes_is_forgotten() {
    // A sign of life every 100 ms: without a wire nothing else tells of a namespace that goes.
    let stage = Stage::new(Node::start_with("leases", Mode::Whole, &["--node-lease", "1s"]).unwrap());
    let doomed = NetNs::new("doomed").unwrap();
    stage
        .api
        .register_kept(endpoint("doomed", SERVICE, &netns_url(&doomed)))
        .unwrap();
    assert_eq!(stage.there(), ["doomed", "gateway"]);
    doomed.remove().unwrap();
    eventually(slow(Duration::from_secs(5)), "the endpoint to go", || {
        Ok(stage.there() == ["gateway"])
    })
    .unwrap();
}

#[test]
fn an_agent_that_is_killed_and_back_in_time_loses_nothing() {
    let lease = slow(Duration::from_secs(4));
    let text = format!("{}ms", lease.as_millis());
    let mut stage = Stage::new(Node::start_apart("leases", &["--node-lease", &text]).unwrap());
    let kept = stage.request("kept", &stage.client);
    let stream = UdpStream::start(
        &stage.client,
        &stage.gateway,
        far_address(&kept),
        UdpPlan::default(),
    )
    .unwrap();
    let interface = kept.mechanism.as_ref().unwrap().parameters["name"].clone();
    let index = |stage: &Stage| stage.client.net(|net| net.link(&interface)).unwrap().ifindex;
    let before = index(&stage);
    for _ in 0..2 {
        stage.node.kill_agent().unwrap();
        std::thread::sleep(lease / 2);
        stage.node.start_agent().unwrap();
    }
    // Control too: it does not know when it last heard of the node, and gives it its whole time.
    stage.node.kill_control().unwrap();
    std::thread::sleep(lease + lease / 4);
    stage.node.start_control().unwrap();
    stage.node.wait_until_ready().unwrap();
    std::thread::sleep(lease + lease / 4);
    assert_eq!(stage.there(), ["kept", "gateway"]);
    assert_eq!(index(&stage), before, "the interface was made again");
    stream.finish().unwrap().assert_perfect().unwrap();
}

#[test]
fn an_agent_that_stays_away_loses_what_it_kept_and_nothing_else() {
    let mut stage = Stage::new(Node::start_apart("leases", &["--node-lease", "1s"]).unwrap());
    stage.request("kept", &stage.client);
    let own = request("own", SERVICE, &netns_url(&stage.client));
    stage
        .api
        .register(endpoint("steady", SERVICE, &netns_url(&stage.gateway)))
        .unwrap();
    stage.node.kill_agent().unwrap();
    eventually(slow(Duration::from_secs(10)), "the lease to end", || {
        Ok(stage.there() == ["steady"])
    })
    .unwrap();
    stage.node.start_agent().unwrap();
    stage.node.kernel().unwrap().assert_whole(0).unwrap();
    stage.api.request(own).unwrap();
    stage.node.kernel().unwrap().assert_whole(1).unwrap();
}
