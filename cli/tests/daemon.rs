//! What daemons say when something is missing, and what they print.

mod support;

use std::net::TcpListener;

use support::{Home, PATIENCE, Said};

#[test]
fn nothing_listens_is_exit_code_three_with_the_command_that_helps() {
    let home = Home::new();
    for (arguments, server) in [
        (&["status"][..], "control"),
        (&["get", "nodes"], "control"),
        (&["get", "wires"], "agent"),
        (&["request", "gold"], "agent"),
        (&["register", "--service", "a", "--name", "b"], "agent"),
        (&["close", "x"], "agent"),
        (&["monitor"], "agent"),
    ] {
        home.run(arguments).code(3).says(&[
            &format!(
                "cannot reach {}",
                if server == "agent" { "the agent" } else { server }
            ),
            "tieline up",
            "--run-dir",
        ]);
    }
}

#[test]
fn a_taken_port_is_one_sentence_and_nothing_is_started() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Said::of(home.daemon(&["control", "--http", &address]), "").code(1);
    said.says(&[&address, "--http off"]);
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(!home.path().join("run/control.sock").exists());
}

#[test]
fn without_bpffs_the_mount_command_is_named_and_nothing_is_made() {
    let home = Home::new();
    let folder = home.path().join("bpf");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.display().to_string();
    let said = Said::of(home.daemon(&["up", "--bpffs", &path]), "").code(1);
    said.says(&[&format!("mount -t bpf bpf {path}"), "--mount-bpffs"]);
    assert!(
        !home.path().join("state").exists() && !home.path().join("run").exists(),
        "nothing half-made"
    );
}

#[test]
fn the_settings_are_printed_as_they_would_be_used() {
    let home = Home::new();
    let said = Said::of(
        home.daemon(&[
            "up",
            "--print-config",
            "--node",
            "n7",
            "--prefix",
            "10.0.0.0/8",
            "-o",
            "json",
        ]),
        "",
    );
    let settings = said.code(0).json();
    assert_eq!(
        (&settings["node"], &settings["http"], &settings["attach"]),
        (&"n7".into(), &"off".into(), &"auto".into())
    );
    assert_eq!(settings["prefixes"], serde_json::json!(["10.0.0.0/8"]));
    assert_eq!(
        settings["socket"],
        format!("unix://{}/run/agent.sock", home.path().display())
    );
    assert!(!home.path().join("run").exists());
}

#[test]
fn health_and_metrics_are_served_until_the_end() {
    let home = Home::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut control = home.start(&[
        "control",
        "--store",
        "memory",
        "--http",
        &format!("127.0.0.1:{port}"),
    ]);
    assert_eq!(get(port, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(port, "/readyz"), (200, "control: ready\n".to_owned()));
    let (code, metrics) = get(port, "/metrics");
    assert_eq!(code, 200);
    assert!(
        metrics.ends_with("# EOF\n") && metrics.contains("\ntieline_build_info{"),
        "{metrics}"
    );
    assert!(
        metrics.lines().any(|line| line.starts_with("tieline_control_")),
        "{metrics}"
    );
    assert_eq!(get(port, "/").0, 404);
    assert!(control.stop(PATIENCE).unwrap().success());
    assert!(
        !home.path().join("run/control.sock").exists(),
        "the socket goes with its server"
    );
}

#[test]
fn completion_scripts_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.run(&["completion", shell])
                .code(0)
                .out
                .contains("networkservices"),
            "{shell}"
        );
    }
}

/// Status code and body of a GET.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn get(port: u16, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
