//! Mechanisms: a wire from namespace to namespace, in each payload and family.

use anyhow::{Result, ensure};
use tieline_lab::NetNs;
use tieline_proto::connection::State;
use tieline_proto::tieline::admin::v1::NetworkService;
use tieline_tests_netns::{Mode, Scene, Watched, service};

use super::{SERVICE, ping_both_ways, with_prefixes};

/// One client, one endpoint, a wire: it carries both ways without a loss, and goes without a trace.
fn carries(scene: Scene, offered: NetworkService, families: usize) -> Result<()> {
    let [server] = scene.serve(offered, ["nse-kernel"])?;
    let client = NetNs::new("nsc-kernel")?;
    let wire = scene.connect(&client, "nsc-kernel-1", SERVICE)?;
    ensure!(wire.connection.state() == State::Up, "{wire:?}");
    ensure!(wire.client.len() == families, "{wire:?}");
    let watched = Watched::start(&client, &wire)?;
    ping_both_ways(&client, &server.netns, &wire)?;
    watched.finish()?.assert_nothing()?;
    scene.finish([client, server.netns])
}

#[test]
fn kernel2kernel() -> Result<()> {
    let scene = Scene::start("k2k", Mode::Apart)?;
    carries(scene, with_prefixes(SERVICE, &["172.16.1.100/31"]), 1)
}

#[test]
fn kernel2kernel_ethernet() -> Result<()> {
    let mut offered = with_prefixes(SERVICE, &["172.16.1.100/31"]);
    if let Some(service) = &mut offered.service {
        service.payload = "ETHERNET".to_owned();
    }
    carries(Scene::start("k2k-eth", Mode::Whole)?, offered, 1)
}

#[test]
fn kernel2kernel_ipv6() -> Result<()> {
    let scene = Scene::start("k2k-v6", Mode::Whole)?;
    carries(scene, with_prefixes(SERVICE, &["2001:db8::/116"]), 1)
}

#[test]
fn kernel2kernel_dual_stack() -> Result<()> {
    let scene = Scene::start("k2k-dual", Mode::Whole)?;
    carries(
        scene,
        with_prefixes(SERVICE, &["2001:db8::/116", "172.16.1.100/31"]),
        2,
    )
}

/// The store of control is in memory.
#[test]
fn memory_kernel2kernel() -> Result<()> {
    let scene = Scene::start_with("k2k-mem", Mode::Whole, &["--store", "memory"])?;
    carries(scene, service(SERVICE, "IP"), 2)
}
