//! The demonstration, short, as root: the main job with real packets.

mod support;

use support::Home;

#[test]
fn the_demonstration_loses_nothing_and_leaves_nothing() {
    let home = Home::new();
    let arguments = [
        "demo",
        "-o",
        "json",
        "--pings",
        "10",
        "--bytes",
        "4194304",
        "--datagrams",
        "500",
    ];
    let report = home.run(&arguments).code(0).json();
    assert_eq!(report["flows"].as_array().unwrap().len(), 12, "{report}");
    for flow in report["flows"].as_array().unwrap() {
        assert!(
            flow["sent"].as_u64().unwrap() > 0 && flow["sent"] == flow["received"],
            "{flow}"
        );
    }
    for account in report["counters"].as_array().unwrap() {
        assert_eq!(account["kernel"], account["sent"], "{account}");
        assert_eq!(account["kernel"], account["received"], "{account}");
    }
    assert_eq!(
        (&report["lossless"], &report["agreed"]),
        (&true.into(), &true.into())
    );
    assert_eq!(report["remains"], serde_json::json!([]));
}
