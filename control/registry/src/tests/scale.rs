//! A registry with many connections.

use std::time::{Duration, Instant};

use super::{Bench, T0, at, request, service};

/// The smallest of several repetitions, so that a busy machine does not decide.
const REPETITIONS: usize = 7;
/// Connections per repetition.
const COUNT: u64 = 50;
/// Among a hundred times as many connections a scan costs a hundred times as much, a search in a tree twice.
const GROWTH: u32 = 10;

struct Clients {
    bench: Bench,
    next: u64,
}

impl Clients {
    fn connect(&mut self, count: u64) -> Duration {
        let begin = Instant::now();
        for _ in 0..count {
            let request = request(&format!("c{}", self.next), "gold");
            self.bench.request(T0, 1 + self.next % 100, request).unwrap();
            self.bench.ack(Vec::new());
            self.next += 1;
        }
        begin.elapsed()
    }

    fn fastest(&mut self) -> Duration {
        (0..REPETITIONS).map(|_| self.connect(COUNT)).min().unwrap()
    }
}

#[test]
fn a_request_among_many_connections_costs_about_what_it_costs_among_few() {
    let mut clients = Clients {
        bench: Bench::new(vec![service("gold")]),
        next: 0,
    };
    clients.connect(COUNT);
    let few = clients.fastest();
    clients.connect(100 * COUNT);
    let many = clients.fastest();
    assert!(many < few * GROWTH, "{few:?} among few, {many:?} among many");
    clients.bench.registry.handle_timeout(at(600));
    assert_eq!(clients.bench.registry.counts().connections, 0);
}
