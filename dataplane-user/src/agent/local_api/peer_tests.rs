use tieline_lab::NetNs;

use super::*;
use crate::agent::{local_api::relay::Door, testing::until};

const NOBODY: u32 = 65_534;

#[tokio::test]
async fn the_kernel_says_who_calls_and_from_which_namespace() {
    let netns = NetNs::new("peer").unwrap();
    let door = Door::new();
    let (relay, peer) = door.caller(Some(&netns), 0).await;
    let peer = peer.unwrap();
    assert_eq!((peer.uid, peer.pid), (0, relay.process.pid()));
    let (device, inode) = netns.id().unwrap();
    assert_eq!(peer.netns().unwrap(), NetnsId { device, inode });
    assert!(
        peer.is_operator().unwrap(),
        "root in the agent's user and pid namespaces"
    );
    assert_eq!(
        peer.cgroup().unwrap(),
        unified_cgroup(&fs::read_to_string("/proc/self/cgroup").unwrap())
    );
}

#[tokio::test]
async fn another_user_is_not_an_operator() {
    let door = Door::new();
    let (_relay, peer) = door.caller(None, NOBODY).await;
    let peer = peer.unwrap();
    assert_eq!(peer.uid, NOBODY);
    assert!(!peer.is_operator().unwrap());
}

#[tokio::test]
async fn root_of_another_pid_namespace_is_not_an_operator() {
    let door = Door::new();
    let mut command = std::process::Command::new("unshare");
    let script = "socket(my $s, 1, 1, 0); connect($s, pack('S a*', 1, $ARGV[0])) or die; sleep 600";
    command
        .args(["--pid", "--fork", "--kill-child", "perl", "-e", script])
        .arg(door.path());
    let _process = tieline_lab::Process::spawn(&mut command).unwrap();
    let stream = door.accept().await;
    let peer = Peer::of(&stream).unwrap();
    assert_eq!(peer.uid, 0);
    assert!(!peer.is_operator().unwrap());
}

#[tokio::test]
async fn a_caller_that_has_ended_is_not_taken_for_another_process() {
    let door = Door::new();
    let (mut relay, peer) = door.caller(None, 0).await;
    let peer = peer.unwrap();
    relay.process.kill().unwrap();
    assert!(matches!(peer.netns(), Err(CallError::UnknownCaller(_))));
    assert!(matches!(peer.cgroup(), Err(CallError::UnknownCaller(_))));
}

#[tokio::test]
async fn a_caller_that_ended_before_it_was_accepted_is_unknown() {
    let door = Door::new();
    let relay = super::super::relay::Relay::start(None, 0, &door.path());
    let pid = relay.process.pid();
    // It has connected when the socket shows up in its descriptors twice: standard input and the connection.
    let sockets = || {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter(is_socket)
            .count()
    };
    until(|| sockets() == 2).await;
    let mut process = relay.process;
    process.kill().unwrap();
    let stream = door.accept().await;
    let error = Peer::of(&stream).unwrap_err();
    assert!(error.to_string().contains("its process has ended"), "{error}");
}

fn is_socket(entry: &fs::DirEntry) -> bool {
    fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
}

#[test]
fn a_pidfd_names_its_process_until_that_ends() {
    assert_eq!(
        handle_pid("pos:\t0\nflags:\t02000002\nPid:\t4711\nNSpid:\t4711\n"),
        Some(4711)
    );
    assert_eq!(handle_pid("pos:\t0\nPid:\t-1\n"), Some(-1));
    assert_eq!(handle_pid("pos:\t0\n"), None);
}

#[test]
fn the_cgroup_is_that_of_the_unified_hierarchy() {
    assert_eq!(
        unified_cgroup("12:cpu:/a\n0::/system.slice/x.service\n"),
        "/system.slice/x.service"
    );
    assert_eq!(unified_cgroup("12:cpu:/a\n"), "");
}

#[test]
fn a_process_runs_as_any_of_its_user_ids() {
    let status = "Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t7\t7\t7\t7\n";
    assert!(runs_as(status, 1001) && !runs_as(status, 7) && !runs_as("", 0));
}
