//! What becomes of a connection that is there, and its second way.

use crate::{
    backup,
    testing::{World, way},
};

fn backup_of(world: &World) -> Option<String> {
    let primary = world.ask(0).unwrap().branches;
    let second = world.asking(0, |input| backup(&world.inventory, world, &input, &primary));
    second.map(|branch| way(&[branch]))
}

#[test]
fn a_connection_leaves_who_is_drained_and_stays_if_there_is_nobody_else() {
    let mut world = World::new(&[
        "service gold",
        "endpoint a gold drained",
        "endpoint b gold",
        "client now:a",
    ]);
    assert_eq!(world.ways(2).unwrap(), ["b", "b"]);
    world.inventory.take_endpoint(&"b".parse().unwrap());
    assert_eq!(world.ways(1).unwrap(), ["a"]);
}

#[test]
fn a_connection_leaves_the_dead_and_stays_if_there_is_nobody_else() {
    let mut world = World::new(&[
        "service gold",
        "endpoint a gold dead",
        "endpoint b gold",
        "client now:a",
    ]);
    assert_eq!(world.ways(2).unwrap(), ["b", "b"]);
    world.line("endpoint b gold dead");
    assert_eq!(
        world.ways(2).unwrap(),
        ["a", "a"],
        "no moving to and fro among the dead"
    );
}

#[test]
fn a_connection_leaves_who_a_rule_does_not_allow_any_more() {
    let world = World::new(&[
        "service gold selector:app=gw",
        "endpoint a gold",
        "endpoint b gold says:app=gw",
        "client now:a",
    ]);
    assert_eq!(world.ways(1).unwrap(), ["b"]);
}

#[test]
fn a_part_of_the_traffic_stays_where_that_part_is() {
    let lines = [
        "service gold",
        "wiring w gold on:tcp/80 -> ",
        "endpoint a gold",
        "endpoint b gold",
        "client now:a+b",
    ];
    let mut world = World::new(&lines);
    world.client.current[0].wiring = Some("w".parse().unwrap());
    assert_eq!(world.ways(2).unwrap(), ["tcp/80=a + b", "tcp/80=a + b"]);
}

#[test]
fn a_part_of_the_traffic_stays_among_the_dead_too() {
    let mut world = World::new(&[
        "service gold",
        "wiring w gold on:tcp/80 -> ",
        "endpoint a gold dead",
        "endpoint b gold dead",
        "client now:a+b",
    ]);
    world.client.current[0].wiring = Some("w".parse().unwrap());
    assert_eq!(world.ways(2).unwrap(), ["tcp/80=a + b", "tcp/80=a + b"]);
}

#[test]
fn who_passes_packets_on_is_not_kept_as_an_end() {
    let world = World::new(&[
        "service gold",
        "endpoint fw gold",
        "endpoint gw gold",
        "client now:fw>gw",
    ]);
    assert_eq!(world.ways(2).unwrap(), ["gw", "gw"]);
}

#[test]
fn shares_that_are_told_go_before_where_the_connection_is() {
    let mut world = World::new(&[
        "service gold",
        "endpoint a gold",
        "endpoint b gold",
        "client now:a",
    ]);
    world
        .client
        .told
        .insert(crate::Class::Stage(0), "b".parse().unwrap());
    assert_eq!(world.ways(1).unwrap(), ["b"]);
    world
        .client
        .told
        .insert(crate::Class::Stage(0), "gone".parse().unwrap());
    assert_eq!(world.ways(1).unwrap(), ["a"], "as far as that is allowed");
}

#[test]
fn the_second_way_shares_nobody_with_the_first_or_at_least_not_the_end_or_the_functions() {
    let mut world = World::new(&[
        "service gold order:app=fw,gw",
        "endpoint fw-1 gold says:app=fw",
        "endpoint gw-1 gold says:app=gw",
    ]);
    assert_eq!(backup_of(&world), None);
    let mut other = World::new(&[
        "service gold order:app=fw,gw",
        "endpoint fw-1 gold says:app=fw",
        "endpoint gw-1 gold says:app=gw",
        "endpoint fw-2 gold says:app=fw",
    ]);
    assert_eq!(backup_of(&other).as_deref(), Some("fw-2>gw-1"));
    other.line("endpoint gw-2 gold says:app=gw");
    assert_eq!(backup_of(&other).as_deref(), Some("fw-2>gw-2"));
    world.line("endpoint gw-2 gold says:app=gw");
    assert_eq!(backup_of(&world).as_deref(), Some("fw-1>gw-2"));
    world.line("endpoint fw-2 gold says:app=fw");
    assert_eq!(backup_of(&world).as_deref(), Some("fw-2>gw-2"));
}

#[test]
fn nothing_is_held_in_reserve_where_the_connection_has_another_end_already() {
    let mut world = World::new(&[
        "service gold order:app=fw,gw",
        "endpoint fw-1 gold says:app=fw at:5",
        "endpoint gw-1 gold says:app=gw",
        "endpoint fw-2 gold says:app=fw",
        "endpoint gw-2 gold says:app=gw at:5",
        "client now:fw-1>gw-1",
    ]);
    let spare = backup_of(&world);
    assert_eq!(spare.as_deref(), Some("fw-2>gw-1"), "fw-1 is where gw-2 is");
    world.line("endpoint gw-3 gold says:app=gw");
    assert_eq!(backup_of(&world).as_deref(), Some("fw-2>gw-3"));
}

#[test]
fn what_is_not_to_be_taken_is_not_held_in_reserve_either() {
    let mut world = World::new(&["service gold", "endpoint a gold", "endpoint b gold"]);
    assert_eq!(backup_of(&world).as_deref(), Some("b"));
    world.line("client avoids:b");
    assert_eq!(backup_of(&world), None);
}

#[test]
fn the_drained_are_not_held_in_reserve_and_the_dead_only_if_nobody_else_is_there() {
    let mut world = World::new(&["service gold", "endpoint a gold", "endpoint c gold drained"]);
    assert_eq!(backup_of(&world), None);
    world.line("endpoint b gold dead");
    assert_eq!(backup_of(&world).as_deref(), Some("b"));
    world.line("endpoint d gold");
    assert_eq!(backup_of(&world).as_deref(), Some("d"));
}

#[test]
fn an_interface_that_ends_one_wire_is_not_held_in_reserve() {
    let mut world = World::new(&[
        "service gold",
        "endpoint a gold",
        "endpoint vm gold tap",
        "client now:a",
    ]);
    assert_eq!(backup_of(&world), None);
    world.line("endpoint b gold");
    assert_eq!(backup_of(&world).as_deref(), Some("b"));
}

#[test]
fn a_search_that_leads_nowhere_ends() {
    let mut world = World::new(&["service gold order:app=a,b,c,d"]);
    for stage in ["a", "b", "c"] {
        for i in 0..200 {
            world.line(&format!("endpoint {stage}-{i} gold says:app={stage}"));
        }
    }
    let error = world.ask(0).unwrap_err();
    assert!(error.to_string().len() < 8000, "{error}");
    assert!(error.to_string().contains("position 4 of 4"), "{error}");
}
