//! The demonstration, short, as root: the gold-network story with real packets.

mod support;

use support::Home;

#[test]
fn the_story_is_told_loses_nothing_and_leaves_nothing() {
    let home = Home::new();
    let report = home
        .run(&["demo", "-o", "json", "--datagrams", "100"])
        .code(0)
        .json();
    let steps = report["steps"].as_array().unwrap();
    let path = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name);
        step.unwrap_or_else(|| panic!("no step {name:?}: {report}"))["path"].clone()
    };
    assert_eq!(path("a firewall registers"), serde_json::json!(["vpngateway"]));
    assert_eq!(
        path("wired through a firewall"),
        serde_json::json!(["fw-1", "vpngateway"])
    );
    assert_eq!(
        path("the first is drained"),
        serde_json::json!(["fw-2", "vpngateway"])
    );
    assert_eq!(path("the wirings are deleted"), serde_json::json!(["vpngateway"]));
    assert_eq!(
        path("an ordered list in their place"),
        serde_json::json!(["fw-1", "vpngateway"])
    );
    for step in steps {
        assert!(
            step["sent"].as_u64().unwrap() > 0 && step["sent"] == step["answered"],
            "{step}"
        );
        assert_eq!(
            (&step["lost"], &step["as_told"]),
            (&0.into(), &true.into()),
            "{step}"
        );
    }
    for account in report["counters"].as_array().unwrap() {
        let frames = |witness: &str| account[witness]["frames"].as_u64().unwrap();
        // The node's probes enter behind the first counter, and their answers are taken out.
        let (sent, kernel, received) = (frames("sent"), frames("kernel"), frames("received"));
        let probes = sent.abs_diff(received);
        assert!(probes <= account["echoes"].as_u64().unwrap(), "{account}");
        assert!(sent.min(received) <= kernel && kernel <= sent, "{account}");
    }
    assert!(report["transfer"]["bytes"].as_u64().unwrap() > 0, "{report}");
    for verdict in ["lossless", "as_told", "agreed"] {
        assert_eq!(report[verdict], true, "{verdict}");
    }
    assert_eq!(report["remains"], serde_json::json!([]));
}
