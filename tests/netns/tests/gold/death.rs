//! Firewalls die: the other one takes over, and nobody reaches the gateway past both.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, eventually};
use tieline_proto::{connection::State, tieline::admin::v1::ConnectionStatus};
use tieline_tests_netns::{Router, Watched, assert_path};

use super::{SERVICE, Stage, Steady, WIRINGS};

/// Without an answer: it takes three questions, 20 ms apart, to find a silent firewall dead, and this is one death alone.
const OUTAGE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(10);

fn status(stage: &Stage) -> Result<ConnectionStatus> {
    let first = stage.scene.api.connections()?.into_iter().next();
    first.context("the wire is gone")
}

/// Its kernel routes, or stands still as that of a machine does that hangs: its interfaces are there, and nothing passes.
fn let_pass(firewall: &Router, on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    for side in ["nse-1", "nsm-1"] {
        firewall
            .netns
            .sysctl(&format!("ipv4/conf/{side}/forwarding"), value)?;
        // Kernels before 6.17 forward IPv6 at all interfaces or at none.
        let key = format!("ipv6/conf/{side}/force_forwarding");
        let here = firewall.netns.sysctl(&key, value);
        here.or_else(|_| firewall.netns.sysctl("ipv6/conf/all/forwarding", value))?;
    }
    Ok(())
}

#[test]
fn a_firewall_that_stands_still_is_left_for_the_other_one_and_without_any_nobody_reaches_the_gateway()
-> Result<()> {
    let mut stage = Stage::new()?;
    stage.add_firewall("fw-1")?;
    stage.add_firewall("fw-2")?;
    stage.apply(WIRINGS)?;
    let user = NetNs::new("user")?;
    let wire = stage.scene.connect(&user, "user", SERVICE)?;
    eventually(LIMIT, "a backup to be known", || {
        Ok(!status(&stage)?.backup.is_empty())
    })?;
    let serving = status(&stage)?.branches[0].path[0].clone();
    let at = stage.firewalls.iter().position(|one| one.name() == serving);
    let dead = stage
        .firewalls
        .swap_remove(at.context("the path begins at a firewall")?);
    let other = stage.firewalls[0].name().to_owned();
    ensure!(
        status(&stage)?.backup == [other.as_str(), "vpngateway"],
        "the gateway is the only one, so the backup is the other firewall: {:?}",
        status(&stage)?.backup
    );

    // Time for some questions to either path: what the node asks is not the user's.
    std::thread::sleep(Duration::from_millis(200));
    ensure!(
        user.icmp("InEchoReps")? == 0,
        "the user was given answers to the node's probes"
    );
    let steady = Steady::start(&stage, &user, &wire)?;
    let_pass(&dead, false)?;
    steady
        .leads(&stage, &[&other, "vpngateway"])
        .context("one stands still")?;
    let Steady {
        watched, transfer, ..
    } = steady;
    let noticed = watched.finish()?;
    noticed.assert_outage_of_at_most(OUTAGE)?;
    eprintln!("longest time without an answer: {:?}", noticed.longest_gap());
    ensure!(transfer.finish()?.bytes > 0, "the transfer broke");

    // The first one is taken out, and the second goes with its namespace.
    stage.scene.api.unregister(dead.registered.clone())?;
    let_pass(&dead, true)?;
    let second = stage.firewalls.swap_remove(0);
    drop(second.netns);
    eventually(LIMIT, "the word that the wire is DOWN", || {
        let status = status(&stage)?;
        let state = status.connection.unwrap_or_default().state();
        Ok(state == State::Down && !status.reason.is_empty())
    })?;
    let stream = Watched::launch(&user, &wire)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(
        stream.answered() == 0,
        "the gateway answers where there is no firewall"
    );

    stage.scene.api.register(dead.registered.clone())?;
    stream.wait_for_answers("the first firewall, which is back")?;
    assert_path(
        &stage.scene.api,
        &wire,
        &stream,
        &[&dead],
        &[dead.name(), "vpngateway"],
    )?;
    drop(stream);
    stage.scene.finish([user, stage.gateway.netns, dead.netns])
}
