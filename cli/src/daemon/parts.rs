//! What runs in this process, as the frame around it sees it.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::DaemonError;

/// A half of Tieline: the agent or control.
pub(crate) trait Part: Send + Sync {
    /// `agent` or `control`.
    fn name(&self) -> &'static str;
    /// Ready, or a sentence why not.
    fn readiness(&self) -> Result<(), String>;
    /// Appends OpenMetrics text.
    fn render_metrics(&self, into: &mut String);
}

/// A part that was started.
pub(crate) struct Running {
    /// `agent` or `control`.
    pub(crate) name: &'static str,
    /// Ends it in order.
    pub(crate) stop: CancellationToken,
    /// Ends with it; an error says why it ended.
    pub(crate) task: JoinHandle<Result<(), DaemonError>>,
}
