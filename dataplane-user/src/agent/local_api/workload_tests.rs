use tieline_lab::NetNs;

use super::*;
use crate::agent::local_api::relay::Door;

const NOBODY: u32 = 65_534;

/// A caller in a namespace of its own, another namespace, and an attestor.
struct Bench {
    own: NetNs,
    other: NetNs,
    door: Door,
    attestor: Attestor,
}

impl Bench {
    fn new() -> Self {
        let attestor = Attestor::new(
            "tl-node",
            crate::netns::current().unwrap().id,
            Arc::new(Attested::new(&[], None)),
        );
        Self {
            own: NetNs::new("own").unwrap(),
            other: NetNs::new("oth").unwrap(),
            door: Door::new(),
            attestor,
        }
    }

    /// What a caller of this user in `own` gets for this `inodeURL`.
    async fn client(&self, uid: u32, url: &str, purpose: Purpose) -> Result<proto::Workload, CallError> {
        let (_relay, peer) = self.door.caller(Some(&self.own), uid).await;
        self.attestor
            .client(&peer.unwrap(), std::iter::once(url), purpose)
    }

    async fn endpoint(&self, uid: u32, url: &str) -> Result<(proto::Workload, String), CallError> {
        let (_relay, peer) = self.door.caller(Some(&self.own), uid).await;
        self.attestor.endpoint(&peer.unwrap(), url, Purpose::Attach)
    }
}

fn path(workload: &proto::Workload) -> &str {
    &workload.netns.as_ref().unwrap().path
}

fn inode_url(netns: &NetNs) -> String {
    let (device, inode) = netns.id().unwrap();
    format!("inode://{device}/{inode}")
}

fn file_url(netns: &NetNs) -> String {
    format!("file://{}", netns.path().display())
}

#[tokio::test]
async fn a_caller_is_where_it_is() {
    let bench = Bench::new();
    for url in [String::new(), inode_url(&bench.own), file_url(&bench.own)] {
        let workload = bench.client(NOBODY, &url, Purpose::Attach).await.unwrap();
        assert_eq!(path(&workload), bench.own.path().to_str().unwrap(), "{url}");
        assert_eq!(
            (workload.uid, workload.operator, workload.node.as_str()),
            (NOBODY, false, "tl-node")
        );
        let netns = workload.netns.unwrap();
        assert_eq!((netns.device, netns.inode), bench.own.id().unwrap());
    }
}

#[tokio::test]
async fn only_an_operator_may_name_another_namespace() {
    let bench = Bench::new();
    for url in [
        inode_url(&bench.other),
        file_url(&bench.other),
        "file:///proc/1/ns/net".into(),
        "file:///nowhere".into(),
    ] {
        let error = bench.client(NOBODY, &url, Purpose::Attach).await.unwrap_err();
        assert_eq!(
            error,
            CallError::Forbidden {
                field: INODE_URL,
                value: url,
                rule: RULE_FOREIGN
            }
        );
    }
    for url in [inode_url(&bench.other), file_url(&bench.other)] {
        let workload = bench.client(0, &url, Purpose::Attach).await.unwrap();
        assert!(workload.operator);
        assert_eq!(path(&workload), bench.other.path().to_str().unwrap(), "{url}");
    }
}

#[tokio::test]
async fn a_namespace_named_by_process_gets_the_name_that_outlives_it() {
    let bench = Bench::new();
    let mut command = std::process::Command::new("sleep");
    command.arg("600");
    let process = bench.other.spawn(command).unwrap();
    let url = format!("file:///proc/{}/ns/net", process.pid());
    let workload = bench.client(0, &url, Purpose::Attach).await.unwrap();
    assert_eq!(path(&workload), bench.other.path().to_str().unwrap());
}

#[tokio::test]
async fn what_is_not_a_workloads_namespace_is_refused_by_its_rule() {
    let bench = Bench::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let regular = format!("file://{}", file.path().display());
    let cases = [
        (
            "file:///run/netns/tl-not-there",
            CallError::NotFound {
                field: INODE_URL,
                value: String::new(),
                rule: RULE_MISSING,
            },
        ),
        (
            "inode://4/1",
            CallError::NotFound {
                field: INODE_URL,
                value: String::new(),
                rule: RULE_MISSING,
            },
        ),
        (&regular, invalid(INODE_URL, "", RULE_NOT_NETNS)),
        ("file:///proc/self/ns/mnt", invalid(INODE_URL, "", RULE_NOT_NETNS)),
        ("file:///dev/zero", invalid(INODE_URL, "", RULE_NOT_NETNS)),
        ("file:///proc/self/ns/net", invalid(INODE_URL, "", RULE_OWN)),
        ("file://run/netns/x", invalid(INODE_URL, "", RULE_FORM)),
        ("file:///", invalid(INODE_URL, "", RULE_FORM)),
        (
            "file:///run/netns/../../etc/passwd",
            invalid(INODE_URL, "", RULE_FORM),
        ),
        ("/run/netns/x", invalid(INODE_URL, "", RULE_FORM)),
        ("inode://4", invalid(INODE_URL, "", RULE_FORM)),
        ("inode://-4/x", invalid(INODE_URL, "", RULE_FORM)),
        ("http://x", invalid(INODE_URL, "", RULE_FORM)),
    ];
    for (url, mut expected) in cases {
        if let CallError::NotFound { value, .. } | CallError::Invalid { value, .. } = &mut expected {
            url.clone_into(value);
        }
        assert_eq!(bench.client(0, url, Purpose::Attach).await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn the_agents_own_namespace_is_nobodys_workload() {
    let bench = Bench::new();
    let (_relay, peer) = bench.door.caller(None, NOBODY).await;
    let peer = peer.unwrap();
    let error = bench
        .attestor
        .client(&peer, std::iter::empty(), Purpose::Attach)
        .unwrap_err();
    assert_eq!(error, invalid(INODE_URL, "", RULE_OWN));
    let released = bench
        .attestor
        .client(&peer, std::iter::empty(), Purpose::Release)
        .unwrap();
    let asks = released.netns.unwrap();
    let own = crate::netns::current().unwrap().id;
    assert_eq!(
        (asks.device, asks.inode),
        (own.device, own.inode),
        "control decides what it may close"
    );
}

#[tokio::test]
async fn a_namespace_that_is_gone_can_be_released() {
    let bench = Bench::new();
    let workload = bench
        .client(0, "file:///run/netns/tl-not-there", Purpose::Release)
        .await
        .unwrap();
    assert_eq!(
        (path(&workload), workload.operator),
        (bench.own.path().to_str().unwrap(), true)
    );
    let error = bench
        .client(NOBODY, "file:///run/netns/tl-not-there", Purpose::Release)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Forbidden { .. }));
}

#[tokio::test]
async fn mechanisms_that_name_different_namespaces_are_refused() {
    let bench = Bench::new();
    let (_relay, peer) = bench.door.caller(Some(&bench.own), 0).await;
    let urls = [file_url(&bench.own), String::new(), file_url(&bench.other)];
    let error = bench
        .attestor
        .client(&peer.unwrap(), urls.iter().map(String::as_str), Purpose::Attach)
        .unwrap_err();
    assert_eq!(error, invalid(INODE_URL, &urls[2], RULE_ONE));
}

#[tokio::test]
async fn an_endpoint_is_its_caller_a_named_namespace_or_an_interface() {
    let bench = Bench::new();
    let (workload, interface) = bench.endpoint(NOBODY, "").await.unwrap();
    assert_eq!(
        (path(&workload), interface.as_str()),
        (bench.own.path().to_str().unwrap(), "")
    );
    let (workload, _) = bench.endpoint(0, &file_url(&bench.other)).await.unwrap();
    assert_eq!(path(&workload), bench.other.path().to_str().unwrap());
    let (workload, interface) = bench.endpoint(0, "interface:///lo").await.unwrap();
    assert_eq!(
        (path(&workload), interface.as_str()),
        (bench.own.path().to_str().unwrap(), "lo")
    );
}

#[tokio::test]
async fn interfaces_of_the_node_are_offered_by_operators_and_exist() {
    let bench = Bench::new();
    let error = bench.endpoint(NOBODY, "interface:///lo").await.unwrap_err();
    assert!(matches!(
        error,
        CallError::Forbidden {
            field: "url",
            rule: RULE_FOREIGN_INTERFACE,
            ..
        }
    ));
    let error = bench.endpoint(0, "interface:///tl-none").await.unwrap_err();
    assert!(matches!(
        error,
        CallError::NotFound {
            field: "url",
            rule: RULE_NO_INTERFACE,
            ..
        }
    ));
    let error = bench
        .endpoint(0, "interface:///sixteen-bytes-xx")
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        CallError::Invalid {
            field: "url",
            rule: RULE_INTERFACE,
            ..
        }
    ));
    let error = bench.endpoint(0, "tap:///x").await.unwrap_err();
    assert!(matches!(
        error,
        CallError::Invalid {
            field: "url",
            rule: RULE_ENDPOINT_FORM,
            ..
        }
    ));
}

#[tokio::test]
async fn labels_are_those_of_whom_the_call_is_about() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let mut bench = Bench::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let entries = format!(
        "workloads:\n- {{netns: {{name: {}}}, labels: {{place: own}}}}\n- {{netns: {{path: {}}}, labels: {{place: \
         other}}}}\n- {{uid: {NOBODY}, labels: {{user: nobody}}}}\n- {{uid: 0, labels: {{user: root}}}}\n",
        bench.own.name(),
        bench.other.path().display(),
    );
    fs::write(file.path(), entries).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
    bench.attestor.attested = Arc::new(Attested::new(&[file.path().to_owned()], None));
    let mut command = std::process::Command::new("sleep");
    command.arg("600");
    let process = bench.other.spawn(command).unwrap();
    let by_process = format!("file:///proc/{}/ns/net", process.pid());
    for (uid, url, expected) in [
        (NOBODY, String::new(), "own nobody"),
        (0, String::new(), "own root"),
        (0, file_url(&bench.own), "own root"),
        // Root calls for somebody else, of whom only the namespace is known,
        (0, file_url(&bench.other), "other -"),
        // or a process.
        (0, by_process, "other root"),
    ] {
        let labels = bench.client(uid, &url, Purpose::Attach).await.unwrap().labels;
        let label = |key| labels.get(key).map_or("-", String::as_str);
        assert_eq!(
            format!("{} {}", label("place"), label("user")),
            expected,
            "{uid} {url}"
        );
    }
    let released = bench.client(NOBODY, "", Purpose::Release).await.unwrap();
    assert!(released.labels.is_empty());
}

#[tokio::test]
async fn a_namespace_without_a_name_is_there_as_long_as_a_process_is_in_it() {
    let netns = NetNs::new("unnamed").unwrap();
    let run = |netns: &NetNs| {
        let mut command = std::process::Command::new("sleep");
        command.arg("600");
        netns.spawn(command).unwrap()
    };
    let (mut first, mut second) = (run(&netns), run(&netns));
    let (device, inode) = netns.id().unwrap();
    let place = Place::Netns(NetnsRef {
        path: PathBuf::from(format!("/proc/{}/ns/net", first.pid())),
        id: NetnsId { device, inode },
    });
    netns.remove().unwrap();
    assert!(place.is_there());
    first.kill().unwrap();
    assert!(place.is_there(), "the other process is still in it");
    second.kill().unwrap();
    assert!(!place.is_there());
}
