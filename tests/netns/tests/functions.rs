//! Functions that are a bump in the wire: what enters at one side leaves at the other as it was.

use std::{collections::HashMap, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{Net, NetNs, TcpPlan, TcpTransfer};
use tieline_proto::{
    registry::{NetworkServiceEndpoint, NetworkServiceLabels},
    tieline::admin::v1::{NetworkService, OrderedSelector},
};
use tieline_tests_netns::{Face, Mode, Router, Scene, Watched, assert_path, endpoint, netns_url, service};

const SERVICE: &str = "gold-network";
const ROLE: &str = "role";
/// What of the function's namespace its two sides are ports of.
const BRIDGE: &str = "bump";

fn registration(name: &str, url: &str, plumbing: Option<&str>) -> NetworkServiceEndpoint {
    let mut registration = endpoint(name, SERVICE, url);
    let plumbing = plumbing.map(|word| ("tieline.io/plumbing".to_owned(), word.to_owned()));
    let role = (ROLE.to_owned(), name.to_owned());
    let labels: HashMap<String, String> = [role].into_iter().chain(plumbing).collect();
    registration
        .network_service_labels
        .insert(SERVICE.to_owned(), NetworkServiceLabels { labels });
    registration
}

/// A namespace with a bridge that says nothing itself.
fn bump() -> Result<NetNs> {
    let netns = NetNs::new("bump")?;
    netns.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    netns.net(|net| {
        net.add_bridge(BRIDGE)?;
        net.set_up(BRIDGE)
    })?;
    Ok(netns)
}

/// What the function does itself: frames go from either side to the other.
fn join_sides(netns: &NetNs) -> Result<usize> {
    netns.net(|net| {
        let links = net.links()?.into_iter();
        let sides: Vec<_> = links
            .filter(|link| link.name != "lo" && link.name != BRIDGE)
            .collect();
        for side in &sides {
            net.set_master(&side.name, BRIDGE)?;
        }
        Ok(sides.len())
    })
}

#[test]
fn a_transparent_function_carries_packets_and_frames_and_leaves_without_a_loss() -> Result<()> {
    for payload in ["IP", "ETHERNET"] {
        let scene = Scene::start("bump", Mode::Apart)?;
        let through = OrderedSelector {
            key: ROLE.to_owned(),
            values: ["bump", "server"].map(str::to_owned).into(),
        };
        scene.api.apply(NetworkService {
            ordered_selector: Some(through),
            ..service(SERVICE, payload)
        })?;
        let netns = bump()?;
        let url = netns_url(&netns);
        let function = Router {
            registered: scene
                .api
                .register(registration("bump", &url, Some("transparent")))?,
            netns,
        };
        let server = scene.add_server("server", |url| registration("server", url, None))?;
        let client = NetNs::new("client")?;
        let wire = scene.connect(&client, "wire", SERVICE)?;
        ensure!(
            join_sides(&function.netns)? == 2,
            "{payload}: the function has two sides"
        );
        let far_end = || Face::of(&server.netns, &wire.endpoint_interface);
        let before = far_end()?;
        let of_sides = |net: &mut Net| Ok([net.addresses("nse-1")?, net.addresses("nsm-1")?].concat());
        let addresses = function.netns.net(of_sides)?;
        ensure!(
            addresses.is_empty(),
            "{payload}: the function has addresses {addresses:?}"
        );

        let watched = Watched::start(&client, &wire)?;
        assert_path(&scene.api, &wire, &watched, &[&function], &["bump", "server"]).context(payload)?;
        let plan = TcpPlan {
            bytes: Some(8_000_000),
            rate: None,
        };
        let to = SocketAddr::new(wire.endpoint[1], 7001);
        let report = TcpTransfer::start(&client, &server.netns, to, plan)?.finish()?;
        ensure!(report.bytes == 8_000_000, "{payload}: {report:?}");

        scene.api.apply(NetworkService {
            selector: HashMap::from([(ROLE.to_owned(), "server".to_owned())]),
            ..service(SERVICE, payload)
        })?;
        assert_path(&scene.api, &wire, &watched, &[&function], &["server"]).context(payload)?;
        watched.assert_same_face()?;
        ensure!(far_end()? == before, "{payload}: the far end changed");
        watched.finish()?.assert_nothing()?;
        function.netns.net(|net| net.delete(BRIDGE))?;
        scene.finish([client, function.netns, server.netns])?;
    }
    Ok(())
}

#[test]
fn a_plumbing_that_there_is_not_is_refused_by_name() -> Result<()> {
    let scene = Scene::start("bump", Mode::Whole)?;
    scene.api.apply(service(SERVICE, "IP"))?;
    let netns = NetNs::new("bump")?;
    let refused = scene
        .api
        .register(registration("bump", &netns_url(&netns), Some("sideways")))
        .err()
        .context("a plumbing that there is not")?;
    for word in ["tieline.io/plumbing", "sideways", "transparent"] {
        ensure!(
            refused.message().contains(word),
            "it does not say {word:?}: {refused:?}"
        );
    }
    ensure!(scene.api.endpoints()?.is_empty());
    scene.finish([netns])
}
