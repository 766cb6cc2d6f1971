//! Which way a wire's packets go: by what control says, what the agent's counters say, and what the functions saw.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::within;
use tieline_proto::tieline::admin::v1::{EndStatus, WireStatus};

use crate::{Api, Router, Watched, Wire};

/// Frames of each stream during which the way is looked at.
const WINDOW: u64 = 100;
/// What may pass besides the streams: a router solicitation, an acknowledgement that was under way.
const STRAY: u64 = 8;
/// Answers that may be waiting for their reader at the first look, on a loaded machine: their datagrams passed before.
const WAITING: u64 = WINDOW / 2;
/// A change is in force within milliseconds; this is for loaded machines.
const LIMIT: Duration = Duration::from_secs(5);

/// One look at everything.
struct Look {
    /// Names of the functions and of the endpoint, as control says.
    path: Vec<String>,
    /// For each end of the wire, by name and side: frames that entered the wire there.
    entered: BTreeMap<(String, &'static str), u64>,
    /// Frames that each router received, by the index of its interface.
    received: Vec<BTreeMap<u32, u64>>,
}

impl Look {
    fn take(api: &Api, id: &str, routers: &[&Router]) -> Result<Self> {
        let connections = api.connections()?;
        let is_it = |connection: &&tieline_proto::tieline::admin::v1::ConnectionStatus| {
            connection.connection.as_ref().is_some_and(|one| one.id == id)
        };
        let connection = connections.iter().find(is_it);
        let connection = connection.with_context(|| format!("control does not know {id}"))?;
        ensure!(
            connection.branches.len() == 1,
            "{id} has {} branches",
            connection.branches.len()
        );
        let received = routers.iter().map(|router| router.received());
        Ok(Self {
            path: connection.branches[0].path.clone(),
            entered: entered(&Wire::status(api, id)?)?,
            received: received.collect::<Result<_>>()?,
        })
    }
}

impl Look {
    /// Whether the wire has its ends where the path needs them, and no others.
    fn is_along(&self, path: &[&str]) -> bool {
        let there = |end: &(String, &'static str)| end.0.is_empty() || path.contains(&&*end.0);
        self.entered.len() == 2 * path.len() && self.entered.keys().all(there)
    }

    /// For errors.
    fn said(&self) -> Vec<String> {
        let ends = self.entered.keys().map(|(name, side)| format!("{name} {side}"));
        [format!("control: {:?}", self.path)]
            .into_iter()
            .chain(ends)
            .collect()
    }
}

fn entered(status: &WireStatus) -> Result<BTreeMap<(String, &'static str), u64>> {
    let mut entered = BTreeMap::new();
    let mut put = |name: &str, side, end: &Option<EndStatus>| -> Result<()> {
        let end = end
            .as_ref()
            .with_context(|| format!("{name} has no {side} end"))?;
        entered.insert((name.to_owned(), side), end.packets);
        Ok(())
    };
    put("", "client", &status.client)?;
    for branch in &status.branches {
        for hop in &branch.hops {
            put(&hop.endpoint_name, "inside", &hop.inside)?;
            put(&hop.endpoint_name, "outside", &hop.outside)?;
        }
        put(&branch.endpoint_name, "endpoint", &branch.endpoint)?;
    }
    Ok(entered)
}

/// Waits until control and agent say that the wire's packets pass exactly `path`, the endpoint last, and fails unless
/// they do: the kernel's counters at each of its ends say so, and of `routers` those on the path saw the packets and the
/// others saw none. `watched` is the wire's traffic, which must be the only one.
pub fn assert_path(
    api: &Api,
    wire: &Wire,
    watched: &Watched<'_>,
    routers: &[&Router],
    path: &[&str],
) -> Result<()> {
    let mut said = Vec::new();
    let before = within(LIMIT, "the path to be in force", || {
        let look = Look::take(api, &wire.id, routers)?;
        said = look.said();
        Ok((look.path == path && look.is_along(path)).then_some(look))
    })
    .with_context(|| format!("{path:?} is not the path: {said:?}"))?;
    let answered = watched.answered();
    watched.wait_for(WINDOW, "answers on the path")?;
    let answered = watched.answered() - answered;
    let after = Look::take(api, &wire.id, routers)?;
    ensure!(
        after.path == path && after.is_along(path),
        "{path:?} was the path, now {:?}",
        after.said()
    );
    for (end, now) in &after.entered {
        let since = now - before.entered.get(end).copied().unwrap_or_default();
        ensure!(
            since + WAITING >= answered,
            "{since} frames entered at {end:?} of {answered}"
        );
    }
    for ((router, before), after) in routers.iter().zip(before.received).zip(after.received) {
        let grown = |(index, now): (&u32, &u64)| now - before.get(index).unwrap_or(&0);
        let (since, on_path) = (
            after.iter().map(grown).sum::<u64>(),
            path.contains(&router.name()),
        );
        // It receives what is asked and what is answered.
        ensure!(
            if on_path {
                since + 2 * WAITING >= 2 * answered
            } else {
                since <= STRAY
            },
            "{} received {since} frames while {answered} were answered on {path:?}",
            router.name()
        );
    }
    Ok(())
}
