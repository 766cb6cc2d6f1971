//! The rules of selection, each by a row of a table.

mod gaps;
mod live;
mod properties;
mod story;
mod table;

use crate::testing::World;

/// What is there, who asks, and what they get: the way at each turn, or a part of what the refusal says.
struct Row {
    truth: &'static str,
    world: &'static [&'static str],
    gets: Result<&'static [&'static str], &'static str>,
}

fn check(rows: &[Row]) {
    for row in rows {
        let world = World::new(row.world);
        match row.gets {
            Ok(ways) => {
                let turns = u64::try_from(ways.len()).unwrap();
                assert_eq!(
                    world.ways(turns).map_err(|e| e.to_string()),
                    Ok(ways.iter().map(ToString::to_string).collect()),
                    "{}",
                    row.truth
                );
            }
            Err(part) => {
                let error = world
                    .ask(0)
                    .map(|selection| selection.branches)
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(part), "{}: {error}", row.truth);
            }
        }
    }
}
