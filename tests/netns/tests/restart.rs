//! Processes of the node are killed while traffic flows: the kernel goes on, and what starts again adopts it.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tieline_lab::{NetNs, TcpPlan, TcpTransfer, UdpPlan, UdpStream, eventually, slow};
use tieline_tests_netns::{
    Api, Face, Foreign, Mode, Node, Wire, endpoint, netns_url, request, service, with_interface,
    with_lifetime,
};
use tonic::Code;

const SERVICE: &str = "gold-network";

/// A client and an endpoint on a node, with the wire that must never notice anything.
struct Stage {
    node: Node,
    api: Api,
    client: NetNs,
    gateway: NetNs,
    wire: Wire,
    foreign: Foreign,
}

impl Stage {
    fn new(mode: Mode) -> Result<Self> {
        let node = Node::start("restart", mode)?;
        let foreign = Foreign::plant(&node, &[])?;
        let (client, gateway) = (NetNs::new("client")?, NetNs::new("gateway")?);
        let api = node.api();
        api.apply(service(SERVICE, "IP"))?;
        api.register(endpoint("vpngateway", SERVICE, &netns_url(&gateway)))?;
        let first = with_interface(request("steady", SERVICE, &netns_url(&client)), "nsm-1");
        let wire = Wire::request(&api, first)?;
        Ok(Self {
            node,
            api,
            client,
            gateway,
            wire,
            foreign,
        })
    }

    fn seen(&self) -> Result<[Face; 2]> {
        Ok([
            Face::of(&self.client, &self.wire.client_interface)?,
            Face::of(&self.gateway, &self.wire.endpoint_interface)?,
        ])
    }

    fn listed(&self) -> Result<Vec<String>> {
        let connections = self.api.connections()?;
        Ok(connections
            .into_iter()
            .filter_map(|status| Some(status.connection?.id))
            .collect())
    }

    fn client_has(&self, interface: &str) -> Result<bool> {
        Ok(self.client.net(|net| net.find(interface))?.is_some())
    }

    fn other(&self, id: &str, interface: &str) -> tieline_proto::networkservice::NetworkServiceRequest {
        with_interface(request(id, SERVICE, &netns_url(&self.client)), interface)
    }
}

/// Streams in both directions and of both protocols over the steady wire.
struct Traffic {
    streams: Vec<UdpStream>,
    transfers: Vec<TcpTransfer>,
}

impl Traffic {
    fn start(stage: &Stage) -> Result<Self> {
        let mut traffic = Self {
            streams: Vec::new(),
            transfers: Vec::new(),
        };
        let at = |address: &IpAddr, port| SocketAddr::new(*address, port);
        let plan = TcpPlan {
            bytes: None,
            rate: Some(8_000_000),
        };
        for family in [0, 1] {
            let (near, far) = (&stage.wire.client[family], &stage.wire.endpoint[family]);
            traffic.streams.push(UdpStream::start(
                &stage.client,
                &stage.gateway,
                at(far, 7000),
                UdpPlan::default(),
            )?);
            traffic.streams.push(UdpStream::start(
                &stage.gateway,
                &stage.client,
                at(near, 7000),
                UdpPlan::default(),
            )?);
            traffic.transfers.push(TcpTransfer::start(
                &stage.client,
                &stage.gateway,
                at(far, 7001),
                plan,
            )?);
        }
        Ok(traffic)
    }

    fn finish_and_assert_perfect(self) -> Result<()> {
        for stream in self.streams {
            let report = stream.finish()?;
            eprintln!("{report:?}");
            report.assert_perfect()?;
        }
        for transfer in self.transfers {
            eprintln!("{:?}", transfer.finish()?);
        }
        Ok(())
    }
}

fn pause(milliseconds: u64) {
    thread::sleep(slow(Duration::from_millis(milliseconds)));
}

#[test]
fn agent_and_control_are_killed_and_no_packet_is_lost() {
    let mut stage = Stage::new(Mode::Apart).unwrap();
    let before = stage.seen().unwrap();
    let traffic = Traffic::start(&stage).unwrap();
    pause(300);
    changes_while_the_agent_is_dead(&mut stage).unwrap();
    assert_eq!(stage.seen().unwrap(), before);
    control_is_away(&mut stage).unwrap();
    assert_eq!(stage.seen().unwrap(), before);
    pause(300);
    traffic.finish_and_assert_perfect().unwrap();
    stage.foreign.assert_untouched(&stage.node).unwrap();
    assert_eq!(stage.seen().unwrap(), before);
}

/// A wire is closed and another one's lease ends while nobody looks after the kernel.
fn changes_while_the_agent_is_dead(stage: &mut Stage) -> Result<()> {
    let lease = slow(Duration::from_secs(4));
    Wire::request(&stage.api, stage.other("to-close", "nsm-close"))?;
    let asked = Instant::now();
    Wire::request(
        &stage.api,
        with_lifetime(stage.other("to-expire", "nsm-expire"), lease),
    )?;
    let at_control = stage.api.monitor_at_control()?;
    let at_agent = stage.api.monitor()?;
    for monitor in [&at_control, &at_agent] {
        monitor.wait_until("all three connections", |all| all.len() == 3)?;
    }
    stage.node.kill_agent()?;
    stage.api.close_at_control("to-close")?;
    at_control.wait_until("the close", |all| !all.contains_key("to-close"))?;
    at_control.wait_until("the expiry", |all| all.len() == 1)?;
    anyhow::ensure!(
        asked.elapsed() + Duration::from_millis(500) >= lease,
        "expired after {:?}",
        asked.elapsed()
    );
    eventually(
        Duration::from_secs(5),
        "the client's stream to end with the agent",
        || Ok(at_agent.has_ended()),
    )?;
    anyhow::ensure!(
        stage.node.kernel()?.positions.len() == 6,
        "the kernel changed without an agent"
    );
    anyhow::ensure!(
        stage.client_has("nsm-close")? && stage.client_has("nsm-expire")?,
        "interfaces went"
    );
    stage.node.start_agent()?;
    eventually(Duration::from_secs(5), "the changes to be caught up", || {
        Ok(!stage.client_has("nsm-close")? && !stage.client_has("nsm-expire")?)
    })?;
    stage.node.kernel()?.assert_whole(1)?;
    anyhow::ensure!(stage.listed()? == ["steady"], "listed: {:?}", stage.listed()?);
    let again = stage.api.monitor()?;
    again.wait_until("the state after the restart", |all| {
        all.len() == 1 && all.contains_key("steady")
    })
}

/// Without control nothing changes, new requests fail at once, and afterwards everything is as before.
fn control_is_away(stage: &mut Stage) -> Result<()> {
    stage.node.kill_control()?;
    pause(300);
    let asked = Instant::now();
    let refused = stage.api.request(stage.other("while-away", "nsm-away"));
    let code = refused.as_ref().err().map(tonic::Status::code);
    anyhow::ensure!(
        code == Some(Code::Unavailable),
        "a request without control: {refused:?}"
    );
    anyhow::ensure!(
        asked.elapsed() < slow(Duration::from_secs(3)),
        "it took {:?}",
        asked.elapsed()
    );
    anyhow::ensure!(
        !stage.client_has("nsm-away")?,
        "a refused request left an interface"
    );
    stage.node.start_control()?;
    stage.node.wait_until_ready()?;
    anyhow::ensure!(stage.listed()? == ["steady"], "listed: {:?}", stage.listed()?);
    stage.node.kernel()?.assert_whole(1)?;
    let refreshed = Wire::request(&stage.api, stage.other("steady", "nsm-1"))?;
    anyhow::ensure!(
        refreshed.client == stage.wire.client,
        "a refresh changed the addresses: {refreshed:?}"
    );
    let new = Wire::request(&stage.api, stage.other("new", "nsm-new"))?;
    anyhow::ensure!(
        !stage.wire.client.contains(&new.client[0]),
        "an address was given out twice"
    );
    stage.api.close(new.connection)?;
    Ok(())
}

#[test]
fn a_whole_node_is_killed_and_no_packet_is_lost() {
    let mut stage = Stage::new(Mode::Whole).unwrap();
    let before = stage.seen().unwrap();
    let traffic = Traffic::start(&stage).unwrap();
    for _ in 0..3 {
        pause(200);
        stage.node.kill_agent().unwrap();
        pause(200);
        assert_eq!(stage.seen().unwrap(), before);
        stage.node.start_agent().unwrap();
        assert_eq!(stage.seen().unwrap(), before);
        assert_eq!(stage.listed().unwrap(), ["steady"]);
        stage.node.kernel().unwrap().assert_whole(1).unwrap();
    }
    traffic.finish_and_assert_perfect().unwrap();
    stage.foreign.assert_untouched(&stage.node).unwrap();
}

#[test]
fn an_orderly_stop_leaves_the_wires_forwarding() {
    let mut stage = Stage::new(Mode::Apart).unwrap();
    let before = stage.seen().unwrap();
    let traffic = Traffic::start(&stage).unwrap();
    pause(200);
    stage.node.stop().unwrap();
    pause(300);
    assert_eq!(stage.seen().unwrap(), before);
    stage.node.start_control().unwrap();
    stage.node.start_agent().unwrap();
    pause(200);
    traffic.finish_and_assert_perfect().unwrap();
    assert_eq!(stage.seen().unwrap(), before);
    stage.foreign.assert_untouched(&stage.node).unwrap();
}

#[test]
fn a_lease_that_ended_while_the_whole_node_was_dead_is_ended_after_its_start() {
    let mut stage = Stage::new(Mode::Whole).unwrap();
    let before = stage.seen().unwrap();
    let lease = slow(Duration::from_secs(2));
    let asked = Instant::now();
    Wire::request(
        &stage.api,
        with_lifetime(stage.other("short", "nsm-short"), lease),
    )
    .unwrap();
    stage.node.kill_agent().unwrap();
    thread::sleep(lease.saturating_sub(asked.elapsed()) + Duration::from_millis(200));
    assert!(
        stage.client_has("nsm-short").unwrap(),
        "somebody ended it although nobody was there"
    );
    stage.node.start_agent().unwrap();
    eventually(Duration::from_secs(5), "the wire to go", || {
        Ok(!stage.client_has("nsm-short")?)
    })
    .unwrap();
    eventually(Duration::from_secs(5), "the list to follow", || {
        Ok(stage.listed()? == ["steady"])
    })
    .unwrap();
    stage.node.kernel().unwrap().assert_whole(1).unwrap();
    assert_eq!(stage.seen().unwrap(), before);
}
