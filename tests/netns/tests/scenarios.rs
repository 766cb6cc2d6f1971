//! The scenarios of Network Service Mesh's test suites, by the same names: each asserts what a client notices (loss,
//! duration, addresses, its interface) and that nothing remains. `docs/nsm-scenarios.md` maps all of them, and says why
//! some are left out.

#[path = "scenarios/basic.rs"]
mod basic;
#[path = "scenarios/chain.rs"]
mod chain;
#[path = "scenarios/context.rs"]
mod context;
#[path = "scenarios/death.rs"]
mod death;
#[path = "scenarios/discover.rs"]
mod discover;
#[path = "scenarios/domains.rs"]
mod domains;
#[path = "scenarios/features.rs"]
mod features;
#[path = "scenarios/heal.rs"]
mod heal;
#[path = "scenarios/life.rs"]
mod life;
#[path = "scenarios/load.rs"]
mod load;

use anyhow::Result;
use tieline_lab::{NetNs, PingPlan, ping};
use tieline_proto::tieline::admin::v1::NetworkService;
use tieline_tests_netns::{Wire, service};

/// The service that most scenarios are about.
const SERVICE: &str = "gold-network";

/// What every scenario of the reference ends with: four pings each way, in every family of the wire.
fn ping_both_ways(client: &NetNs, endpoint: &NetNs, wire: &Wire) -> Result<()> {
    let plan = PingPlan {
        count: 4,
        ..PingPlan::default()
    };
    anyhow::ensure!(
        !wire.client.is_empty() && wire.client.len() == wire.endpoint.len(),
        "addresses: {wire:?}"
    );
    for (near, far) in wire.client.iter().zip(&wire.endpoint) {
        ping(client, *far, plan)?.assert_all_answered()?;
        ping(endpoint, *near, plan)?.assert_all_answered()?;
    }
    Ok(())
}

/// A service with addresses from these prefixes.
fn with_prefixes(name: &str, prefixes: &[&str]) -> NetworkService {
    let mut service = service(name, "IP");
    service.prefixes = prefixes.iter().map(ToString::to_string).collect();
    service
}

/// The table and the files of the scenarios.
const TABLE: &str = include_str!("../../../docs/nsm-scenarios.md");
const FILES: [(&str, &str); 10] = [
    ("basic", include_str!("scenarios/basic.rs")),
    ("chain", include_str!("scenarios/chain.rs")),
    ("context", include_str!("scenarios/context.rs")),
    ("death", include_str!("scenarios/death.rs")),
    ("discover", include_str!("scenarios/discover.rs")),
    ("domains", include_str!("scenarios/domains.rs")),
    ("features", include_str!("scenarios/features.rs")),
    ("heal", include_str!("scenarios/heal.rs")),
    ("life", include_str!("scenarios/life.rs")),
    ("load", include_str!("scenarios/load.rs")),
];

#[test]
fn the_table_names_every_scenario_that_there_is_and_no_other() {
    let mut there = std::collections::BTreeSet::new();
    for (file, text) in FILES {
        let after_each = text.split("#[test]\nfn ").skip(1);
        there.extend(after_each.filter_map(|rest| Some(format!("{file}::{}", rest.split_once('(')?.0))));
    }
    let quoted = TABLE.split('`').skip(1).step_by(2);
    let named = quoted.filter(|text| {
        FILES
            .iter()
            .any(|(file, _)| text.starts_with(&format!("{file}::")))
    });
    let named: std::collections::BTreeSet<String> = named.map(str::to_owned).collect();
    assert!(there.len() >= 40, "the scenarios are not found: {there:?}");
    assert_eq!(named, there, "left: docs/nsm-scenarios.md, right: the tests");
}
