//! A node leads a wire over its backup by itself: what it decided holds, whoever dies next.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, eventually, slow};
use tieline_proto::tieline::admin::v1::ConnectionStatus;
use tieline_tests_netns::{Mode, Scene, Server, Watched, service};

const SERVICE: &str = "gold-network";
/// From the death to the first packet at the backup; on a busy machine not every time in the 150 ms of the median.
const OUTAGE: Duration = Duration::from_millis(600);
const LIMIT: Duration = Duration::from_secs(5);

/// What control says of the only wire.
fn status(scene: &Scene) -> Result<ConnectionStatus> {
    let first = scene.api.connections()?.into_iter().next();
    first.context("the wire is gone")
}

fn leads_to(status: &ConnectionStatus, server: &Server) -> bool {
    let branch = status.branches.first();
    branch.is_some_and(|branch| branch.path.last().is_some_and(|last| last == server.name()))
}

#[test]
fn a_switch_outlives_the_agent_that_made_it_and_control_hears_of_it_from_the_next() -> Result<()> {
    let mut scene = Scene::start("failover", Mode::Apart)?;
    let [one, two] = scene.serve(service(SERVICE, "IP"), ["one", "two"])?;
    let client = NetNs::new("client")?;
    let wire = scene.connect(&client, "wire", SERVICE)?;
    eventually(LIMIT, "a backup to be known", || {
        Ok(!status(&scene)?.backup.is_empty())
    })?;
    let (dies, heir) = if leads_to(&status(&scene)?, &one) {
        (one, two)
    } else {
        (two, one)
    };
    let watched = Watched::start(&client, &wire)?;
    scene.node.kill_control()?;
    // Its interface comes back with the next agent; its server does not: packets that were led there again would be missed.
    dies.netns.net(|net| net.set_down(&wire.endpoint_interface))?;
    dies.responder.die();
    watched.wait_for_answers_by(heir.responder.id())?;
    scene.node.kill_agent()?;
    watched.wait_for_answers("the wire without an agent")?;
    scene.node.start_control()?;
    scene.node.start_agent()?;
    scene.node.wait_until_ready()?;
    watched.wait_for_answers_by(heir.responder.id())?;
    eventually(LIMIT, "control to know", || Ok(leads_to(&status(&scene)?, &heir)))?;
    watched.wait_for_answers_by(heir.responder.id())?;
    let noticed = watched.finish()?;
    noticed.assert_outage_of_at_most(slow(OUTAGE))?;
    ensure!(noticed.answered_by(heir.responder.id()) > 0);
    scene.finish([client, dies.netns, heir.netns])
}
