//! In which order candidates are tried.

use std::sync::Arc;

use tieline_model::{NetworkServiceEndpoint, NodeName, Policy};

use super::Usage;

pub(super) type Endpoint<'a> = &'a Arc<NetworkServiceEndpoint>;

/// Endpoints that share a weight, by node and name.
pub(super) struct Share<'a> {
    pub(super) weight: u64,
    pub(super) endpoints: Vec<Endpoint<'a>>,
}

impl<'a> Share<'a> {
    /// `endpoint`, if it is in this share.
    pub(super) fn find(&self, endpoint: &NetworkServiceEndpoint) -> Option<Endpoint<'a>> {
        let found = self
            .endpoints
            .binary_search_by(|one| (one.node(), one.name()).cmp(&(endpoint.node(), endpoint.name())));
        found.ok().and_then(|at| self.endpoints.get(at).copied())
    }
}

/// The endpoints of all shares in the order of `policy`, each once; those of weight 0 are left out.
pub(super) fn order<'a>(
    shares: &[Share<'a>],
    policy: Policy,
    near: &NodeName,
    usage: &dyn Usage,
    turn: u64,
) -> Vec<Endpoint<'a>> {
    let mut order = match policy {
        Policy::RoundRobin => in_turn(shares, turn),
        Policy::LeastLoaded => by_load(shares, usage),
        Policy::SameNodeFirst => {
            let only = |here: bool| -> Vec<Share<'a>> {
                let of = |share: &Share<'a>| Share {
                    weight: share.weight,
                    endpoints: share
                        .endpoints
                        .iter()
                        .copied()
                        .filter(|one| (one.node() == near) == here)
                        .collect(),
                };
                shares.iter().map(of).collect()
            };
            let mut order = in_turn(&only(true), turn);
            order.extend(in_turn(&only(false), turn));
            order
        }
    };
    if shares.len() > 1 {
        let mut seen = std::collections::BTreeSet::new();
        order.retain(|one| seen.insert(Arc::as_ptr(one)));
    }
    order
}

/// Weighted round robin: of every `sum of weights` turns each share gets its weight, spread over them, and within a
/// share each endpoint has its turn. Who comes behind the one whose turn it is, is tried when that one cannot serve.
fn in_turn<'a>(shares: &[Share<'a>], turn: u64) -> Vec<Endpoint<'a>> {
    let live: Vec<&Share<'a>> = shares
        .iter()
        .filter(|share| share.weight > 0 && !share.endpoints.is_empty())
        .collect();
    let total: u64 = live.iter().map(|share| share.weight).sum();
    let (Some(round), Some(position)) = (turn.checked_div(total), turn.checked_rem(total)) else {
        return Vec::new();
    };
    let mut slot = spread(position, total);
    let Some(first) = live
        .iter()
        .position(|share| match slot.checked_sub(share.weight) {
            Some(rest) => {
                slot = rest;
                false
            }
            None => true,
        })
    else {
        return Vec::new();
    };
    let mut order = Vec::with_capacity(live.iter().map(|share| share.endpoints.len()).sum());
    for (i, share) in live.iter().cycle().skip(first).take(live.len()).enumerate() {
        let turn = if i == 0 {
            round.wrapping_mul(share.weight).wrapping_add(slot)
        } else {
            turn
        };
        let count = u64::try_from(share.endpoints.len()).unwrap_or(u64::MAX);
        let start = usize::try_from(turn % count).unwrap_or_default();
        let (before, from) = share.endpoints.split_at(start);
        order.extend(from.iter().chain(before));
    }
    order
}

/// A permutation of `0..total` that puts neighbours far from one another, so that a share's turns do not come in a row.
fn spread(position: u64, total: u64) -> u64 {
    if total < 3 {
        return position;
    }
    // Steps of the golden section are spread most evenly.
    let golden = total / 55 * 34 + total % 55 * 34 / 55;
    let step = (golden.max(1)..total)
        .find(|step| coprime(*step, total))
        .unwrap_or(1);
    let product = u128::from(position) * u128::from(step) % u128::from(total);
    u64::try_from(product).unwrap_or(position)
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

/// The fewest connections for the weight first.
fn by_load<'a>(shares: &[Share<'a>], usage: &dyn Usage) -> Vec<Endpoint<'a>> {
    let live = shares.iter().filter(|share| share.weight > 0);
    let mut loads: Vec<(u128, Endpoint<'a>)> = live
        .flat_map(|share| share.endpoints.iter().map(|one| (share.weight, *one)))
        .map(|(weight, one)| {
            let load = usage.connections(one.name()) as u128 + 1;
            // A fixed point is exact enough: shares of up to a billion are told apart.
            ((load << 64) / u128::from(weight), one)
        })
        .collect();
    loads.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.name().cmp(other.name())));
    loads.into_iter().map(|(_, one)| one).collect()
}
