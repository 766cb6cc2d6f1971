//! Giving each endpoint its share of the connections that are there, with as few moves as possible.

use std::collections::BTreeMap;

use tieline_model::{ConnectionId, EndpointName, NodeName, ServiceName};

use crate::{Choice, Class, Inventory};

/// A connection of the service that is balanced, as it would be if it stayed.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The connection.
    pub id: &'a ConnectionId,
    /// Its client's node.
    pub node: &'a NodeName,
    /// The choices of its selection.
    pub choices: &'a [Choice],
}

/// Where decisions are told to go.
pub type Told = BTreeMap<Class, EndpointName>;

/// Whom to tell what, so that each endpoint of a decision has its share by weight. Decisions over destinations that
/// depend on the request are left as they are.
#[must_use]
pub fn balance(
    inventory: &Inventory,
    service: &ServiceName,
    members: &[Member<'_>],
) -> BTreeMap<ConnectionId, Told> {
    let mut tallies: BTreeMap<(&NodeName, &Class), Tally<'_>> = BTreeMap::new();
    for member in members {
        for choice in member.choices {
            let again = member
                .choices
                .iter()
                .filter(|other| other.class == choice.class)
                .count()
                > 1;
            let at = tallies.entry((member.node, &choice.class)).or_default();
            if !again {
                at.members
                    .entry(&choice.endpoint)
                    .or_default()
                    .push((choice.kept, member.id));
            }
        }
    }
    let mut told: BTreeMap<ConnectionId, Told> = BTreeMap::new();
    for ((node, class), tally) in tallies {
        for (id, endpoint) in tally.moves(&inventory.weights(service, node, class)) {
            told.entry(id.clone())
                .or_default()
                .insert(class.clone(), endpoint.clone());
        }
    }
    told
}

/// The connections that one kind of decision has put somewhere.
#[derive(Default)]
struct Tally<'a> {
    /// By endpoint: whether it was there before, and the connection.
    members: BTreeMap<&'a EndpointName, Vec<(bool, &'a ConnectionId)>>,
}

impl<'a> Tally<'a> {
    /// Who goes where instead, given the weights of the endpoints.
    fn moves<'b>(
        mut self,
        weights: &BTreeMap<&'b EndpointName, u128>,
    ) -> Vec<(&'a ConnectionId, &'b EndpointName)> {
        self.members.retain(|name, _| weights.contains_key(*name));
        let targets = self.targets(weights);
        let mut surplus: Vec<&ConnectionId> = Vec::new();
        for (name, members) in &mut self.members {
            // Those that move anyway go first, then the last ones by id.
            members.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
            let target = targets.get(*name).copied().unwrap_or_default();
            surplus.extend(members.drain(members.len().min(target)..).map(|(_, id)| id));
        }
        let have = |name: &EndpointName| self.members.get(name).map_or(0, Vec::len);
        let wanting = targets
            .iter()
            .flat_map(|(name, target)| std::iter::repeat_n(*name, target.saturating_sub(have(name))));
        surplus.into_iter().zip(wanting).collect()
    }

    /// How many each endpoint is to have: its share, rounded so that the least moves.
    fn targets<'b>(&self, weights: &BTreeMap<&'b EndpointName, u128>) -> BTreeMap<&'b EndpointName, usize> {
        let total: u128 = weights.values().sum();
        let count: usize = self.members.values().map(Vec::len).sum();
        if total == 0 {
            return BTreeMap::new();
        }
        let have = |name: &EndpointName| self.members.get(name).map_or(0, Vec::len);
        let mut targets = BTreeMap::new();
        let mut remainders = Vec::new();
        for (name, weight) in weights {
            let exact = weight * count as u128;
            let whole = usize::try_from(exact / total).unwrap_or(usize::MAX);
            targets.insert(*name, whole);
            // Whoever has more than the whole part anyway keeps one first; then the largest fraction.
            remainders.push((have(name) <= whole, std::cmp::Reverse(exact % total), *name));
        }
        remainders.sort_unstable();
        let given: usize = targets.values().sum();
        for (_, _, name) in remainders.into_iter().take(count.saturating_sub(given)) {
            if let Some(target) = targets.get_mut(name) {
                *target += 1;
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{World, way};

    /// Selects connections that are where `at` says again, and balances them: how many are where, and how many moved.
    fn balanced(world: &mut World, at: &[String]) -> (BTreeMap<String, usize>, usize) {
        let ids: Vec<ConnectionId> = (0..at.len()).map(|i| format!("c{i}").parse().unwrap()).collect();
        let node: NodeName = "n1".parse().unwrap();
        let mut kept = Vec::new();
        for now in at {
            world.line(&format!("client now:{now}"));
            kept.push(world.ask(0).unwrap());
        }
        let members: Vec<Member<'_>> = ids
            .iter()
            .zip(&kept)
            .map(|(id, selection)| Member {
                id,
                node: &node,
                choices: &selection.choices,
            })
            .collect();
        let told = balance(&world.inventory, &"gold".parse().unwrap(), &members);
        let (mut counts, mut moved) = (BTreeMap::new(), 0);
        for (id, now) in ids.iter().zip(at) {
            world.line(&format!("client now:{now}"));
            world.client.told = told.get(id).cloned().unwrap_or_default();
            let then = way(&world.ask(0).unwrap().branches);
            moved += usize::from(then != *now);
            *counts.entry(then).or_default() += 1;
        }
        world.client.told.clear();
        (counts, moved)
    }

    #[test]
    fn one_more_endpoint_gets_its_share_and_nobody_else_moves() {
        let mut world = World::new(&[
            "service gold",
            "endpoint a gold",
            "endpoint b gold",
            "endpoint c gold",
        ]);
        let at: Vec<String> = (0..12)
            .map(|i| if i < 6 { "a" } else { "b" }.to_owned())
            .collect();
        let (counts, moved) = balanced(&mut world, &at);
        let expected = ["a", "b", "c"].map(|name| (name.to_owned(), 4));
        assert_eq!((counts, moved), (BTreeMap::from(expected), 4));
    }

    #[test]
    fn weights_are_shares_of_what_is_there() {
        let mut world = World::new(&[
            "service gold",
            "wiring w gold -> v=a*3 | v=b*1",
            "endpoint a gold says:v=a",
            "endpoint b1 gold says:v=b",
            "endpoint b2 gold says:v=b",
        ]);
        let at = vec!["a".to_owned(); 16];
        let (counts, moved) = balanced(&mut world, &at);
        let expected = [("a", 12), ("b1", 2), ("b2", 2)].map(|(name, n)| (name.to_owned(), n));
        assert_eq!((counts, moved), (BTreeMap::from(expected), 4));
    }

    #[test]
    fn functions_on_the_way_have_their_shares_and_ends_stay() {
        let mut world = World::new(&[
            "service gold order:app=fw,gw",
            "endpoint fw-1 gold says:app=fw",
            "endpoint fw-2 gold says:app=fw",
            "endpoint gw-1 gold says:app=gw",
            "endpoint gw-2 gold says:app=gw",
        ]);
        let at = ["fw-1>gw-1", "fw-1>gw-2", "fw-1>gw-1", "fw-1>gw-2"].map(str::to_owned);
        let (counts, moved) = balanced(&mut world, &at);
        assert_eq!(moved, 2);
        let through = |name: &str| {
            counts
                .iter()
                .filter(|(way, _)| way.contains(name))
                .map(|(_, n)| n)
                .sum::<usize>()
        };
        assert_eq!(["fw-1", "fw-2", "gw-1", "gw-2"].map(through), [2, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn shares_differ_by_one_at_most_and_what_is_balanced_stays(at in prop::collection::vec(0..5_usize, 1..60), endpoints in 1..5_usize) {
            let mut world = World::new(&["service gold"]);
            (0..endpoints).for_each(|i| world.line(&format!("endpoint e{i} gold")));
            let at: Vec<String> = at.iter().map(|i| format!("e{}", i % endpoints)).collect();
            let (counts, moved) = balanced(&mut world, &at);
            let (least, most) = (at.len() / endpoints, at.len().div_ceil(endpoints));
            let of = |name: usize| counts.get(&format!("e{name}")).copied().unwrap_or_default();
            prop_assert!((0..endpoints).all(|i| (least..=most).contains(&of(i))), "{:?}", counts);
            let before = |i: usize| at.iter().filter(|name| **name == format!("e{i}")).count();
            let too_many: usize = (0..endpoints).map(|i| before(i).saturating_sub(of(i))).sum();
            prop_assert_eq!(moved, too_many, "nobody moves who need not");
            let then: Vec<String> = counts.iter().flat_map(|(name, n)| std::iter::repeat_n(name.clone(), *n)).collect();
            prop_assert_eq!(balanced(&mut world, &then).1, 0);
        }
    }
}
