//! Who may do what, and who may be connected to whom.

use tieline_lab::NetNs;
use tieline_tests_netns::{netns_url, request, service};
use tonic::Code;

use super::{SERVICE, Stage, bad_input::Refusal};

/// Another user than root, in the namespace `netns`, asks with the command-line client.
#[test]
fn a_workload_cannot_act_for_another_one() {
    use std::os::unix::process::CommandExt as _;

    const NOBODY: u32 = 65534;
    let stage = Stage::new();
    let program = stage.node.program_for_others().unwrap();
    let ask = |netns: &NetNs, arguments: &[&str]| {
        let mut command = stage.node.command(arguments).unwrap();
        let mut other = std::process::Command::new(&program);
        other
            .args(command.get_args())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/");
        command = other;
        netns.run(move || Ok(command.output()?)).unwrap()
    };
    let own = ask(&stage.client, &["request", SERVICE, "--id", "own"]);
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    let before = stage.state();
    let foreign = ask(
        &stage.client,
        &[
            "request",
            SERVICE,
            "--id",
            "foreign",
            "--netns",
            stage.second.name(),
        ],
    );
    let said = String::from_utf8_lossy(&foreign.stderr);
    assert!(
        !foreign.status.success() && said.contains(stage.second.name()),
        "{said}"
    );
    let close = ask(&stage.second, &["close", "own"]);
    assert!(!close.status.success(), "a foreign wire was closed");
    assert_eq!(stage.state(), before);
}

#[test]
fn a_service_without_endpoints_and_a_client_that_is_the_only_endpoint_are_refused() {
    let stage = Stage::new();
    stage.api.apply(service("lonely", "IP")).unwrap();
    let before = stage.state();
    let lonely = stage
        .api
        .request(request("refused", "lonely", &netns_url(&stage.client)))
        .map(drop);
    let codes = &[Code::FailedPrecondition, Code::NotFound, Code::Unavailable];
    Refusal {
        about: "no endpoint",
        outcome: lonely,
        codes,
        says: vec!["lonely".to_owned()],
    }
    .assert();
    let itself = stage
        .api
        .request(request("refused", SERVICE, &netns_url(&stage.gateway)))
        .map(drop);
    Refusal {
        about: "itself",
        outcome: itself,
        codes,
        says: vec!["vpngateway".to_owned()],
    }
    .assert();
    assert_eq!(stage.state(), before);
}

#[test]
fn a_label_that_a_client_claims_is_not_one_that_it_carries() {
    use std::{collections::HashMap, fs};

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("workloads.yaml");
    fs::write(&file, "workloads: []\n").unwrap();
    let stage = Stage::with(&["--workloads", file.to_str().unwrap()]);
    // Written when the node runs already, and in force with the next call.
    let firewall = format!(
        "workloads:\n- {{netns: {{name: {}}}, labels: {{firewall: \"true\"}}}}\n",
        stage.second.name()
    );
    fs::write(&file, firewall).unwrap();
    let claimed = HashMap::from([("firewall".to_owned(), "true".to_owned())]);
    for (id, netns) in [("claims", &stage.client), ("is", &stage.second)] {
        let mut request = request(id, SERVICE, &netns_url(netns));
        request.connection.as_mut().unwrap().labels.clone_from(&claimed);
        stage.api.request(request).unwrap();
    }
    let proven = |id: &str| {
        let connections = stage.api.connections().unwrap();
        let found = connections
            .into_iter()
            .find(|one| one.connection.as_ref().unwrap().id == id);
        let found = found.unwrap();
        let said = found.connection.unwrap().labels;
        assert_eq!(said, claimed, "its own word is kept as such");
        found.labels
    };
    assert_eq!(proven("claims"), HashMap::new());
    assert_eq!(proven("is"), claimed);
    let shown = stage
        .node
        .command(&["describe", "connection", "is", "-o", "json"])
        .unwrap()
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["attested_labels"]["firewall"], "true");
    // A file that turns bad is told, and changes nobody.
    fs::write(&file, "workloads: [{labels: {}}]\n").unwrap();
    let mut again = request("is", SERVICE, &netns_url(&stage.second));
    again.connection.as_mut().unwrap().labels.clone_from(&claimed);
    stage.api.request(again).unwrap();
    assert_eq!(proven("is"), claimed);
    let sources = stage.api.node().unwrap().label_sources;
    assert!(sources[0].error.contains("every workload"), "{sources:?}");
}
