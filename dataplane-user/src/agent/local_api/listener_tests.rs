use super::*;

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket file outlives whoever made it");
    let first = Listener::bind(&path).unwrap();
    assert!(matches!(
        Listener::bind(&path),
        Err(AgentError::SocketInUse { .. })
    ));
    assert!(path.exists(), "the living one keeps its socket");
    drop(first);
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Listener::bind(&path),
        Err(AgentError::NotASocket { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn every_user_may_connect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/agent.sock");
    let _listener = Listener::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
}
