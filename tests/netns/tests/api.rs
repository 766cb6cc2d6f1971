//! What a client may rely on when it requests, refreshes, closes and monitors; and what it hears when it asks for
//! what cannot be.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "api/bad_input.rs"]
mod bad_input;
#[path = "api/identity.rs"]
mod identity;
#[path = "api/limits.rs"]
mod limits;

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use tieline_lab::{Net, NetNs, PingPlan, eventually, ping, slow};
use tieline_proto::connection::{Connection, ConnectionEventType, State};
use tieline_tests_netns::{
    Api, Kernel, Mode, Node, Wire, endpoint, netns_url, request, service, with_interface, with_lifetime,
};

const SERVICE: &str = "gold-network";

/// A node with a service, its endpoint and two clients.
struct Stage {
    node: Node,
    api: Api,
    client: NetNs,
    second: NetNs,
    gateway: NetNs,
}

impl Stage {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more arguments for the node.
    fn with(arguments: &[&str]) -> Self {
        let node = Node::start_with("api", Mode::Whole, arguments).unwrap();
        let api = node.api();
        let [client, second, gateway] =
            ["client", "second", "gateway"].map(|label| NetNs::new(label).unwrap());
        api.apply(service(SERVICE, "IP")).unwrap();
        api.register(endpoint("vpngateway", SERVICE, &netns_url(&gateway)))
            .unwrap();
        Self {
            node,
            api,
            client,
            second,
            gateway,
        }
    }

    fn request(&self, id: &str) -> tieline_proto::networkservice::NetworkServiceRequest {
        request(id, SERVICE, &netns_url(&self.client))
    }

    fn client_interfaces(&self) -> Vec<tieline_lab::Link> {
        self.client.net(Net::links).unwrap()
    }

    /// Everything that a refused call must leave as it is.
    fn state(&self) -> (Kernel, Vec<tieline_lab::Link>, Vec<tieline_lab::Link>, usize) {
        let gateway = self.gateway.net(Net::links).unwrap();
        let connections = self.api.connections().unwrap().len();
        (
            self.node.kernel().unwrap(),
            self.client_interfaces(),
            gateway,
            connections,
        )
    }
}

fn expiry(connection: &Connection) -> SystemTime {
    let segments = &connection.path.as_ref().unwrap().path_segments;
    let soonest = segments
        .iter()
        .filter_map(|segment| segment.expires)
        .map(|at| SystemTime::try_from(at).unwrap())
        .min();
    soonest.unwrap()
}

#[test]
fn a_wire_carries_both_families_as_soon_as_the_request_is_answered() {
    let stage = Stage::new();
    let wire = Wire::request(&stage.api, stage.request("first")).unwrap();
    assert_eq!(wire.connection.state(), State::Up);
    assert_eq!((wire.client.len(), wire.endpoint.len()), (2, 2), "{wire:?}");
    let once = PingPlan {
        count: 1,
        ..PingPlan::default()
    };
    for (near, far) in wire.client.iter().zip(&wire.endpoint) {
        ping(&stage.client, *far, once)
            .unwrap()
            .assert_all_answered()
            .unwrap();
        ping(&stage.gateway, *near, once)
            .unwrap()
            .assert_all_answered()
            .unwrap();
    }
    let large = PingPlan { size: 1472, ..once };
    ping(&stage.client, wire.endpoint[0], large)
        .unwrap()
        .assert_all_answered()
        .unwrap();
}

#[test]
fn a_request_is_idempotent_on_its_id() {
    let stage = Stage::new();
    let first = Wire::request(&stage.api, stage.request("same")).unwrap();
    let before = stage.state();
    let again = Wire::request(&stage.api, stage.request("same")).unwrap();
    assert_eq!(stage.state().1, before.1, "the client's interface changed");
    assert_eq!((first.client, first.endpoint), (again.client, again.endpoint));
    assert_eq!(first.client_interface, again.client_interface);
    assert_eq!(stage.api.connections().unwrap().len(), 1);
    // The client library sends back what it was answered.
    let mut refresh = stage.request("same");
    refresh.connection = Some(again.connection);
    let third = stage.api.request(refresh).unwrap();
    assert_eq!(third.id, "same");
    assert_eq!(stage.state().1, before.1);
}

#[test]
fn a_refresh_prolongs_the_lease() {
    let stage = Stage::new();
    let lease = slow(Duration::from_secs(3));
    let first = stage
        .api
        .request(with_lifetime(stage.request("kept"), lease))
        .unwrap();
    let begin = Instant::now();
    while begin.elapsed() < lease * 2 {
        std::thread::sleep(lease / 4);
        let refreshed = stage
            .api
            .request(with_lifetime(stage.request("kept"), lease))
            .unwrap();
        assert!(expiry(&refreshed) > expiry(&first));
        assert_eq!(
            stage.client_interfaces().len(),
            2,
            "the interface went although it was refreshed"
        );
    }
}

#[test]
fn without_refresh_a_wire_ends_with_its_lease() {
    let stage = Stage::new();
    let lease = slow(Duration::from_secs(2));
    let wire = Wire::request(&stage.api, with_lifetime(stage.request("short"), lease)).unwrap();
    let begin = Instant::now();
    let left = expiry(&wire.connection)
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(left <= lease, "granted {left:?} of {lease:?}");
    eventually(lease * 3, "the interface to go", || {
        Ok(stage.client_interfaces().len() == 1)
    })
    .unwrap();
    assert!(
        begin.elapsed() + Duration::from_millis(200) >= left,
        "it went after {:?}",
        begin.elapsed()
    );
    eventually(Duration::from_secs(3), "the endpoint's end to go", || {
        Ok(stage.gateway.net(Net::links)?.len() == 1)
    })
    .unwrap();
    assert!(stage.api.connections().unwrap().is_empty());
    stage.node.kernel().unwrap().assert_whole(0).unwrap();
}

#[test]
fn close_leaves_nothing_and_may_be_repeated() {
    let stage = Stage::new();
    let before = stage.state();
    let wire = Wire::request(&stage.api, stage.request("closed")).unwrap();
    assert_ne!(stage.state(), before);
    stage.api.close(wire.connection.clone()).unwrap();
    eventually(Duration::from_secs(3), "everything to go", || {
        Ok(stage.state() == before)
    })
    .unwrap();
    stage.api.close(wire.connection).unwrap();
    stage
        .api
        .close(Connection {
            id: "never-was".to_owned(),
            ..Connection::default()
        })
        .unwrap();
    // The addresses are free again.
    let again = Wire::request(&stage.api, stage.request("closed")).unwrap();
    assert_eq!((again.client.len(), stage.client_interfaces().len()), (2, 2));
}

#[test]
fn one_client_may_have_many_wires_to_one_endpoint() {
    let stage = Stage::new();
    let wires: Vec<Wire> = (0..5)
        .map(|number| Wire::request(&stage.api, stage.request(&format!("many-{number}"))).unwrap())
        .collect();
    stage.node.kernel().unwrap().assert_whole(5).unwrap();
    for wire in &wires {
        for far in &wire.endpoint {
            ping(&stage.client, *far, PingPlan::default())
                .unwrap()
                .assert_all_answered()
                .unwrap();
        }
    }
    let mut all: Vec<_> = wires
        .iter()
        .flat_map(|wire| wire.client.iter().chain(&wire.endpoint))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "an address was given out twice");
}

#[test]
fn counters_count_what_passed() {
    let stage = Stage::new();
    let wire = Wire::request(&stage.api, stage.request("counted")).unwrap();
    let count = |api: &Api| -> Result<(u64, u64)> {
        let status = Wire::status(api, "counted")?;
        let branch = status.branches.into_iter().next().unwrap_or_default();
        Ok((
            status.client.unwrap_or_default().packets,
            branch.endpoint.unwrap_or_default().packets,
        ))
    };
    ping(&stage.client, wire.endpoint[0], PingPlan::default())
        .unwrap()
        .assert_all_answered()
        .unwrap();
    let before = count(&stage.api).unwrap();
    let plan = PingPlan {
        count: 50,
        ..PingPlan::default()
    };
    ping(&stage.client, wire.endpoint[0], plan)
        .unwrap()
        .assert_all_answered()
        .unwrap();
    let after = count(&stage.api).unwrap();
    // Neighbour discovery may add a few.
    assert!((50..60).contains(&(after.0 - before.0)), "{before:?} {after:?}");
    assert!((50..60).contains(&(after.1 - before.1)), "{before:?} {after:?}");
}

#[test]
fn monitor_sends_the_state_first_and_then_every_change() {
    let stage = Stage::new();
    Wire::request(&stage.api, stage.request("before")).unwrap();
    let monitor = stage.api.monitor().unwrap();
    monitor
        .wait_until("the state", |all| all.len() == 1 && all.contains_key("before"))
        .unwrap();
    let first = &monitor.events()[0];
    assert_eq!(first.r#type(), ConnectionEventType::InitialStateTransfer);
    let wire = Wire::request(&stage.api, stage.request("later")).unwrap();
    monitor
        .wait_until("the new one", |all| {
            all.get("later").is_some_and(|one| one.state() == State::Up)
        })
        .unwrap();
    stage.api.close(wire.connection).unwrap();
    monitor.wait_until("its end", |all| all.len() == 1).unwrap();
    let lease = slow(Duration::from_secs(2));
    stage
        .api
        .request(with_lifetime(stage.request("short"), lease))
        .unwrap();
    monitor
        .wait_until("the short one", |all| all.contains_key("short"))
        .unwrap();
    monitor
        .wait_until("its expiry", |all| !all.contains_key("short"))
        .unwrap();
    let second = stage.api.monitor().unwrap();
    second
        .wait_until("the same state in a second stream", |all| all.len() == 1)
        .unwrap();
    assert!(!monitor.has_ended());
}

#[test]
fn interface_names_are_those_asked_for() {
    let stage = Stage::new();
    let wire = Wire::request(
        &stage.api,
        with_interface(stage.request("named"), "fifteen-bytes-x"),
    )
    .unwrap();
    assert_eq!(wire.client_interface, "fifteen-bytes-x");
    // The same name in another namespace is another interface.
    let other = request("named-too", SERVICE, &netns_url(&stage.second));
    let other = Wire::request(&stage.api, with_interface(other, "fifteen-bytes-x")).unwrap();
    assert_eq!(other.client_interface, "fifteen-bytes-x");
}
