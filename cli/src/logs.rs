//! Logs go to standard error; results go to standard output.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::args::Global;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Whether a text is a log filter; clap's value parser.
pub(crate) fn parse_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!("{error}: write error, warn, info, debug or trace, or a list such as info,dataplane_user=debug")
    })
}

/// Starts logging. Daemons log from `info`, commands from `warn`, unless `--log-level` says otherwise.
pub(crate) fn init(global: &Global, daemon: bool) {
    let level = match (&global.log_level, daemon) {
        (Some(level), _) => level.as_str(),
        (None, true) => "info",
        (None, false) => "warn",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
