//! `/metrics`, `/healthz` and `/readyz` for what runs in this process.

use std::{fmt::Write as _, future::IntoFuture as _, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{DaemonError, parts::Part};

/// What Prometheus negotiates for OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The parts in this process, in the order of their start.
pub(crate) type Parts = Arc<Vec<Box<dyn Part>>>;

/// Takes the port: before anything else starts, so that a taken port leaves nothing half-made.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => DaemonError::HttpTaken { address },
            _ => DaemonError::Http { address, source },
        })
}

/// Serves until cancelled; answers that have begun are finished.
pub(crate) fn serve(
    listener: TcpListener,
    parts: Parts,
    stop: CancellationToken,
) -> JoinHandle<std::io::Result<()>> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(parts);
    tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .into_future(),
    )
}

/// Alive: the process answers. What it can do is `/readyz`'s question.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(parts): State<Parts>) -> impl IntoResponse {
    let (ready, text) = readiness(&parts);
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn metrics(State(parts): State<Parts>) -> Response {
    // Counters are read from the kernel, which may wait for the thread that changes it.
    match tokio::task::spawn_blocking(move || render(&parts)).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// One line per part: `control: ready`, or why not.
fn readiness(parts: &[Box<dyn Part>]) -> (bool, String) {
    let mut ready = true;
    let mut text = String::new();
    for part in parts {
        let state = part.readiness();
        ready &= state.is_ok();
        let state = state.err().unwrap_or_else(|| "ready".to_owned());
        let _ = writeln!(text, "{}: {state}", part.name());
    }
    (ready, text)
}

/// The parts' metrics one after the other, with one end mark.
fn render(parts: &[Box<dyn Part>]) -> String {
    let mut text = format!(
        "# HELP tieline_build Release of this process.\n# TYPE tieline_build info\ntieline_build_info{{version=\"{}\",abi=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION"),
        dataplane_common::abi::ABI_VERSION,
    );
    if let Some(bytes) = resident_bytes() {
        let _ = write!(
            text,
            "# HELP process_resident_memory_bytes Resident memory of this process.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n"
        );
    }
    for part in parts {
        let mut own = String::new();
        part.render_metrics(&mut own);
        text.push_str(own.trim_end().trim_end_matches("# EOF").trim_end());
        text.push('\n');
    }
    text + "# EOF\n"
}

/// From `/proc/self/statm`, whose second field counts pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page_size).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(&'static str, Result<(), String>, &'static str);

    impl Part for Fake {
        fn name(&self) -> &'static str {
            self.0
        }
        fn readiness(&self) -> Result<(), String> {
            self.1.clone()
        }
        fn render_metrics(&self, into: &mut String) {
            into.push_str(self.2);
        }
    }

    #[test]
    fn metrics_have_one_end_mark_at_the_end() {
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(Fake("control", Ok(()), "# TYPE a counter\na_total 1\n# EOF\n")),
            Box::new(Fake("agent", Ok(()), "# TYPE b gauge\nb 2\n")),
        ];
        let text = render(&parts);
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
        assert!(text.ends_with("\nb 2\n# EOF\n"), "{text}");
        assert!(text.contains("\na_total 1\n# TYPE b gauge\n"), "{text}");
        assert!(!text.contains("\n\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn one_part_that_is_not_ready_makes_the_process_not_ready_and_says_why() {
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(Fake("control", Ok(()), "")),
            Box::new(Fake("agent", Err("no session".into()), "")),
        ];
        assert_eq!(
            readiness(&parts),
            (false, "control: ready\nagent: no session\n".to_owned())
        );
    }

    #[tokio::test]
    async fn a_taken_port_is_one_sentence() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--http"),
            "{error}"
        );
    }
}
