//! `tieline demo`: the gold-network story with real packets, and nothing left behind.
//!
//! A node of its own in a network namespace, a laptop, a gateway and two firewalls in theirs, connected and re-connected
//! through the same commands that an operator types, while packets flow. Everything is made by guards of the laboratory, which remove it when the demonstration ends, fails
//! or is interrupted; at the end the kernel is asked whether anything remained.

mod account;
mod hops;
mod node;
mod report;
mod stage;
mod story;
mod timing;
mod traffic;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use clap::Args;
use tokio::runtime::Builder;

use self::story::Story;
use crate::{
    args::Global,
    check,
    daemon::DaemonError,
    error::Failure,
    exit::Exit,
    output::{self, Format},
    signals::Signals,
};

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo tieline demo
  sudo tieline demo --datagrams 10000 --rate 5000
  sudo tieline demo -o json | jq '.steps[] | {name, path, sent, lost}'")]
pub(crate) struct DemoArgs {
    /// Datagrams of each family that are answered after the change of each step, at least
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    datagrams: u64,
    /// Datagrams per second and family
    #[arg(long, value_name = "RATE", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

/// Set when the user asked for the end; looked at between steps.
#[derive(Clone, Debug, Default)]
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Fails if the user asked for the end.
    fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// Runs it. The exit code is 0 only if nothing was lost, packets took the paths told, everything agreed and nothing
/// remained.
pub(crate) fn run(global: &Global, args: &DemoArgs) -> Result<Exit, Failure> {
    let missing = check::missing_capabilities().map_err(Failure::Runtime)?;
    if !missing.is_empty() {
        return Err(DaemonError::Capabilities { missing }.into());
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let interrupted = Interrupted::default();
    let (flag, args, format) = (interrupted.clone(), args.clone(), global.output);
    runtime.block_on(async move {
        let mut signals = Signals::new().map_err(Failure::Runtime)?;
        let mut work = tokio::task::spawn_blocking(move || perform(&args, format, &flag));
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            name = signals.next() => {
                interrupted.0.store(true, Ordering::Relaxed);
                output::note(&format!("{name}: cleaning up"))?;
                work.await
            }
        };
        let outcome = outcome.map_err(|error| Failure::Demo(error.into()))?;
        outcome.map_err(Failure::Demo)
    })
}

/// The demonstration, then the proof that nothing remained, whatever the demonstration came to.
fn perform(args: &DemoArgs, format: Format, interrupted: &Interrupted) -> Result<Exit> {
    let mut report = report::Report::new(format);
    let before = stage::Traces::before()?;
    let stage = stage::Stage::build(&mut report)?;
    let traces = before.of(&stage);
    let outcome = story(args, &stage, &mut report, interrupted);
    let outcome = outcome.map_err(|error| match interrupted.check() {
        Ok(()) => error.context(stage.end_of_log()),
        Err(interruption) => interruption,
    });
    drop(stage);
    let remains = traces.remaining()?;
    report.cleaned(&remains)?;
    outcome?;
    report.finish()
}

/// What a user of Tieline does, from the first command to the last.
fn story(
    args: &DemoArgs,
    stage: &stage::Stage,
    report: &mut report::Report,
    interrupted: &Interrupted,
) -> Result<()> {
    let node = node::Node::start(stage, report)?;
    interrupted.check()?;
    let wire = node.connect(report)?;
    interrupted.check()?;
    report.setup_times(&timing::measure(stage, interrupted)?)?;
    let before = account::read(stage, &node, &wire)?;
    let transfer = traffic::Transfer::start(stage, &wire)?;
    let told = Story {
        args,
        stage,
        node: &node,
        wire: &wire,
        interrupted,
    }
    .tell(report);
    let transfer = told.and_then(|()| transfer.finish())?;
    let after = account::read(stage, &node, &wire)?;
    report.traffic(transfer, account::compare(before, after))?;
    node.close(&wire, report)?;
    node.stop(report)
}
