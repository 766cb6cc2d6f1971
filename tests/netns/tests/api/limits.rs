//! What is taken, used up or too large: refused, and nothing half-made stays.

use tieline_lab::{PingPlan, ping};
use tieline_tests_netns::{Wire, endpoint, netns_url, request, service, with_interface};
use tonic::Code;

use super::{Stage, bad_input::Refusal};

#[test]
fn a_name_that_is_taken_is_refused_whoever_has_it() {
    let stage = Stage::new();
    stage.client.net(|net| net.add_bridge("somebodys")).unwrap();
    Wire::request(&stage.api, with_interface(stage.request("first"), "nsm-1")).unwrap();
    let before = stage.state();
    for (name, by) in [
        ("nsm-1", "another connection"),
        ("somebodys", "somebody else"),
        ("lo", "the kernel"),
    ] {
        let outcome = stage
            .api
            .request(with_interface(stage.request("refused"), name))
            .map(drop);
        let codes = &[Code::AlreadyExists, Code::FailedPrecondition];
        Refusal {
            about: by,
            outcome,
            codes,
            says: vec![name.to_owned()],
        }
        .assert();
        assert_eq!(stage.state(), before, "{by}: the refused request left something");
    }
}

#[test]
fn prefixes_that_overlap_or_are_used_up_are_refused() {
    let stage = Stage::new();
    let with_prefix = |name: &str, prefix: &str| {
        let mut service = service(name, "IP");
        service.prefixes = vec![prefix.to_owned()];
        service
    };
    stage.api.apply(with_prefix("small", "10.77.0.0/30")).unwrap();
    let overlapping = stage
        .api
        .apply(with_prefix("overlapping", "10.77.0.0/16"))
        .map(drop);
    let says = vec![
        "10.77.0.0/16".to_owned(),
        "10.77.0.0/30".to_owned(),
        "small".to_owned(),
    ];
    let codes = &[
        Code::InvalidArgument,
        Code::AlreadyExists,
        Code::FailedPrecondition,
    ];
    Refusal {
        about: "overlap",
        outcome: overlapping,
        codes,
        says,
    }
    .assert();
    stage
        .api
        .register(endpoint("small-0", "small", &netns_url(&stage.gateway)))
        .unwrap();
    let mut last = None;
    for number in 0..4 {
        let request = request(&format!("small-{number}"), "small", &netns_url(&stage.client));
        let before = stage.state();
        match stage.api.request(request) {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(stage.state(), before, "the refused request left something");
                last = Some(status);
                break;
            }
        }
    }
    let outcome = last.map_or(Ok(()), Err);
    let says = vec!["10.77.0.0/30".to_owned(), "small".to_owned()];
    Refusal {
        about: "used up",
        outcome,
        codes: &[Code::ResourceExhausted],
        says,
    }
    .assert();
}

#[test]
fn full_tables_refuse_new_wires_and_keep_the_old_ones() {
    let stage = Stage::with(&["--max-wires", "2"]);
    let wires = ["one", "two"].map(|id| Wire::request(&stage.api, stage.request(id)).unwrap());
    let before = stage.state();
    let outcome = stage.api.request(stage.request("three")).map(drop);
    let says = vec![stage.node.name().to_owned(), "2".to_owned()];
    Refusal {
        about: "a third wire",
        outcome,
        codes: &[Code::ResourceExhausted],
        says,
    }
    .assert();
    assert_eq!(stage.state(), before, "the refused request left something");
    for wire in &wires {
        let plan = PingPlan::default();
        ping(&stage.client, wire.endpoint[0], plan)
            .unwrap()
            .assert_all_answered()
            .unwrap();
    }
    let [one, _] = wires;
    stage.api.close(one.connection).unwrap();
    Wire::request(&stage.api, stage.request("three")).unwrap();
}

#[test]
fn an_oversized_message_is_refused_and_the_next_one_is_served() {
    let stage = Stage::new();
    let mut large = stage.request("large");
    let labels = &mut large.connection.as_mut().unwrap().labels;
    for number in 0..40_000 {
        labels.insert(
            format!("key-{number}"),
            "a value of some length, so that it adds up".to_owned(),
        );
    }
    let outcome = stage.api.request(large).map(drop);
    let codes = &[Code::OutOfRange, Code::ResourceExhausted, Code::InvalidArgument];
    Refusal {
        about: "oversized",
        outcome,
        codes,
        says: Vec::new(),
    }
    .assert();
    stage.node.kernel().unwrap().assert_whole(0).unwrap();
    Wire::request(&stage.api, stage.request("small")).unwrap();
}
