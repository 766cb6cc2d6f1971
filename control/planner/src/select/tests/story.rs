//! The story of the wiring document.

use crate::testing::World;

const GATEWAYS: &[&str] = &[
    "service gold-network selector:app=vpngateway",
    "endpoint vpngateway gold-network says:app=vpngateway proven:vpngateway=true",
    "client asks:gold-network",
];

fn firewalls(world: &mut World) {
    for name in ["firewall-1", "firewall-2"] {
        world.line(&format!(
            "endpoint {name} gold-network says:app=firewall proven:app=firewall,firewall=true"
        ));
    }
}

/// What a firewall's own request for the service gets, which is in its namespace.
fn from_a_firewall(world: &mut World) -> Vec<String> {
    let firewall = world.inventory.endpoints()["firewall-1"].clone();
    let tieline_model::Attachment::Netns(netns) = firewall.attachment() else {
        panic!()
    };
    let inode = netns.id().unwrap().inode;
    let before = world.client.clone();
    world.line(&format!("client at:{inode} proven:app=firewall,firewall=true"));
    let ways = world.ways(3).unwrap();
    world.client = before;
    ways
}

#[test]
fn users_reach_the_gateway_through_a_firewall_and_firewalls_never_another_one() {
    let mut world = World::new(GATEWAYS);
    assert_eq!(world.ways(2).unwrap(), ["vpngateway", "vpngateway"]);
    firewalls(&mut world);
    assert_eq!(
        world.ways(2).unwrap(),
        ["vpngateway", "vpngateway"],
        "nothing changes by accident"
    );
    world.line("wiring gold-network-wiring-1 gold-network from:!gold-network -> firewall=true");
    world.line("wiring gold-network-wiring-2 gold-network pod:firewall=true -> vpngateway=true");
    let through = [
        "firewall-1>vpngateway",
        "firewall-2>vpngateway",
        "firewall-1>vpngateway",
    ];
    assert_eq!(world.ways(3).unwrap(), through);
    assert_eq!(from_a_firewall(&mut world), ["vpngateway"; 3]);
}

#[test]
fn the_ordered_list_gives_the_same_paths() {
    let mut world = World::new(GATEWAYS);
    firewalls(&mut world);
    world.line("service gold-network order:app=firewall,vpngateway");
    let through = [
        "firewall-1>vpngateway",
        "firewall-2>vpngateway",
        "firewall-1>vpngateway",
    ];
    assert_eq!(world.ways(3).unwrap(), through);
    assert_eq!(from_a_firewall(&mut world), ["vpngateway"; 3]);
}

#[test]
fn the_report_says_at_each_step_who_was_taken_out_by_which_rule() {
    let mut world = World::new(GATEWAYS);
    firewalls(&mut world);
    world.line("wiring gold-network-wiring-1 gold-network from:!gold-network -> firewall=true");
    world.line("wiring gold-network-wiring-2 gold-network pod:firewall=true -> vpngateway=true");
    let report = world.ask(0).unwrap().report;
    let texts = |parts: &mut dyn Iterator<Item = String>| parts.collect::<Vec<_>>();
    let told: Vec<_> = report
        .decisions
        .iter()
        .map(|one| {
            (
                one.behind.as_ref().map(ToString::to_string),
                texts(&mut one.steps.iter().map(ToString::to_string)),
                texts(&mut one.removed.iter().map(ToString::to_string)),
                one.chosen.as_ref().unwrap().to_string(),
            )
        })
        .collect();
    let text = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            (
                None,
                text(&[
                    "wiring gold-network-wiring-1 decides",
                    "RoundRobin over 2, turn 0"
                ]),
                text(&["vpngateway: wiring gold-network-wiring-1: no destination selects its labels"]),
                "firewall-1 as gateway".to_owned()
            ),
            (
                Some("firewall-1".to_owned()),
                text(&[
                    "wiring gold-network-wiring-1 does not apply: the source is an endpoint of gold-network",
                    "wiring gold-network-wiring-2 decides",
                    "RoundRobin over 1, turn 0"
                ]),
                text(&[
                    "firewall-1: wiring gold-network-wiring-2: no destination selects its labels",
                    "firewall-2: wiring gold-network-wiring-2: no destination selects its labels"
                ]),
                "vpngateway".to_owned()
            ),
        ]
    );
}
