//! A node beside others: a second process of the same node, a second node in the same namespace, and what belongs to
//! somebody else.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{process::Stdio, time::Duration};

use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};
use tieline_tests_netns::{Foreign, Mode, Node, Wire, endpoint, netns_url, request, service};

const SERVICE: &str = "gold-network";
const LIMIT: Duration = Duration::from_secs(10);

/// Two workloads and a wire between them.
struct Pair {
    client: NetNs,
    gateway: NetNs,
    wire: Wire,
}

impl Pair {
    fn connect(node: &Node) -> Self {
        let (client, gateway) = (NetNs::new("client").unwrap(), NetNs::new("gateway").unwrap());
        let api = node.api();
        api.apply(service(SERVICE, "IP")).unwrap();
        api.register(endpoint("gateway", SERVICE, &netns_url(&gateway)))
            .unwrap();
        let wire = Wire::request(&api, request("wire", SERVICE, &netns_url(&client))).unwrap();
        Self {
            client,
            gateway,
            wire,
        }
    }

    fn assert_works(&self) {
        let plan = PingPlan {
            count: 5,
            ..PingPlan::default()
        };
        for (near, far) in self.wire.client.iter().zip(&self.wire.endpoint) {
            ping(&self.client, *far, plan)
                .unwrap()
                .assert_all_answered()
                .unwrap();
            ping(&self.gateway, *near, plan)
                .unwrap()
                .assert_all_answered()
                .unwrap();
        }
    }
}

#[test]
fn a_second_process_of_a_node_is_refused_in_a_sentence_and_the_first_goes_on() {
    let node = Node::start("second", Mode::Apart).unwrap();
    let pair = Pair::connect(&node);
    let before = node.kernel().unwrap();
    for (role, mut command) in [
        ("agent", node.agent_command().unwrap()),
        ("control", node.control_command().unwrap()),
    ] {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = node.netns().spawn(command).unwrap();
        let status = process.wait(LIMIT).unwrap();
        let said = process.read_stderr().unwrap();
        assert!(!status.success(), "a second {role} ended well: {said}");
        assert!(
            said.contains(node.dir().to_str().unwrap()),
            "it does not say what is in use: {said}"
        );
    }
    assert_eq!(node.kernel().unwrap(), before);
    pair.assert_works();
    node.api()
        .request(request("another", SERVICE, &netns_url(&pair.client)))
        .unwrap();
}

#[test]
fn two_nodes_in_one_namespace_leave_each_others_wires_alone() {
    let mut left = Node::start("left", Mode::Whole).unwrap();
    let mut right = left.start_beside("right", Mode::Whole).unwrap();
    let (pair, other) = (Pair::connect(&left), Pair::connect(&right));
    for node in [&mut left, &mut right] {
        node.kill_agent().unwrap();
        node.start_agent().unwrap();
        node.kernel().unwrap().assert_whole(1).unwrap();
        pair.assert_works();
        other.assert_works();
    }
    left.api().close(pair.wire.connection.clone()).unwrap();
    left.kernel().unwrap().assert_whole(0).unwrap();
    right.kernel().unwrap().assert_whole(1).unwrap();
    other.assert_works();
}

#[test]
fn what_belongs_to_somebody_else_stays_through_the_life_of_wires_and_of_the_node() {
    let mut node = Node::start("foreign", Mode::Whole).unwrap();
    let (client, machine) = (NetNs::new("client").unwrap(), NetNs::new("machine").unwrap());
    node.netns()
        .net(|net| {
            net.add_veth("tap0", "inside", Some(&machine))?;
            net.set_alias("tap0", "of the machine's owner")?;
            net.set_up("tap0")
        })
        .unwrap();
    let foreign = Foreign::plant(&node, &["tap0"]).unwrap();
    let watch = || Watch::default().interfaces(node.netns()).dir(node.bpffs().path());
    let before = Leftovers::snapshot(&watch()).unwrap();
    let tap = node.netns().net(|net| net.link("tap0")).unwrap();
    let api = node.api();
    api.apply(service(SERVICE, "ETHERNET")).unwrap();
    api.register(endpoint("tap", SERVICE, "interface:///tap0"))
        .unwrap();
    for _ in 0..3 {
        let wire = Wire::request(&api, request("wire", SERVICE, &netns_url(&client))).unwrap();
        node.kernel().unwrap().assert_whole(1).unwrap();
        foreign.assert_untouched(&node).unwrap();
        api.close(wire.connection).unwrap();
        foreign.assert_untouched(&node).unwrap();
    }
    before.assert_same_objects(&watch()).unwrap();
    assert_eq!(node.netns().net(|net| net.link("tap0")).unwrap(), tap);
    node.kill_agent().unwrap();
    node.start_agent().unwrap();
    foreign.assert_untouched(&node).unwrap();
    node.stop().unwrap();
    foreign.assert_untouched(&node).unwrap();
}
