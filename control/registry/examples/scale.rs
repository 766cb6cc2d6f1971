//! Times a registry of 100,000 connections on 10 nodes: each set-up, a refresh of all, restoring, and the end of all
//! leases. `cargo run --release -p tieline-registry --example scale`

use std::{
    collections::BTreeMap,
    error::Error,
    time::{Duration, Instant},
};

use tieline_model::{
    Attachment, ConnectionRequest, Labels, NetnsId, NetnsRef, NetworkService, NetworkServiceEndpoint, Object,
    Timestamp, Workload,
};
use tieline_registry::{Command, Effects, NodeHello, Registry, RegistryConfig, Reply};

const CONNECTIONS: u64 = 100_000;
const NODES: u64 = 10;
const START: Timestamp = Timestamp::from_millis(1);

type Outcome<T> = Result<T, Box<dyn Error>>;

struct World {
    registry: Registry,
    store: BTreeMap<String, Vec<u8>>,
}

fn config() -> Outcome<RegistryConfig> {
    let mut config = RegistryConfig::new()?;
    config.default_prefixes = vec!["10.0.0.0/8".parse()?, "fd74:6c00::/64".parse()?];
    Ok(config)
}

impl World {
    fn new() -> Outcome<Self> {
        let mut world = Self {
            registry: Registry::new(config()?)?,
            store: BTreeMap::new(),
        };
        let mut objects = vec![Object::NetworkService(NetworkService::new("gold".parse()?))];
        for n in 0..NODES {
            let node = format!("n{n}");
            let hello = NodeHello {
                node: node.parse()?,
                version: String::new(),
                generation: 0,
                attach_backend: String::new(),
                max_wires: u32::MAX,
            };
            world.registry.handle(START, Command::NodeHello(hello))?;
            let services = BTreeMap::from([("gold".parse()?, Labels::default())]);
            let at = Attachment::Netns(NetnsRef::parse("netns", &format!("/run/netns/gw{n}"), None)?);
            let endpoint =
                NetworkServiceEndpoint::declared(format!("gw-{n}").parse()?, services, node.parse()?, at)?;
            objects.push(Object::NetworkServiceEndpoint(endpoint));
        }
        world.registry.handle(
            START,
            Command::Apply {
                objects,
                dry_run: false,
            },
        )?;
        world.flush()?;
        Ok(world)
    }

    fn flush(&mut self) -> Outcome<Effects> {
        let mut effects = self.registry.take_effects()?;
        for write in effects.writes.drain(..) {
            match write.value {
                Some(value) => drop(self.store.insert(write.key, value)),
                None => drop(self.store.remove(&write.key)),
            }
        }
        Ok(effects)
    }

    fn request_all(&mut self, now: Timestamp) -> Outcome<Vec<Duration>> {
        let mut times = Vec::new();
        for n in 0..CONNECTIONS {
            let begin = Instant::now();
            let id = NetnsId {
                device: 4,
                inode: 1000 + n / 4,
            };
            let netns = NetnsRef::parse("netns", &format!("/run/netns/w{}", n / 4), Some(id))?;
            let node = format!("n{}", n % NODES).parse()?;
            let caller = Workload {
                node,
                uid: 0,
                pid: 1,
                netns,
                cgroup: String::new(),
                operator: false,
                labels: Labels::default(),
            };
            let request = Box::new(ConnectionRequest::new(format!("c{n}").parse()?, "gold".parse()?));
            let reply = self.registry.handle(now, Command::Request { caller, request })?;
            self.flush()?;
            if let Reply::Connection(granted) = reply
                && let Some(planned) = granted.settles
            {
                let (node, generation) = (planned.node, planned.generation);
                self.registry.handle(
                    now,
                    Command::NodeReport {
                        node,
                        generation,
                        failures: Vec::new(),
                    },
                )?;
                self.flush()?;
            }
            times.push(begin.elapsed());
        }
        Ok(times)
    }
}

fn show(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |share: usize| {
        sorted
            .get(sorted.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let tenth = times.len() / 10;
    let mean =
        |part: &[Duration]| part.iter().sum::<Duration>() / u32::try_from(part.len().max(1)).unwrap_or(1);
    let (first, last) = (mean(&times[..tenth]), mean(&times[times.len() - tenth..]));
    println!(
        "{what}: median {:?}, p99 {:?}; first tenth {first:?}, last tenth {last:?}",
        at(50),
        at(99)
    );
}

fn main() -> Outcome<()> {
    let mut world = World::new()?;
    show("request, acknowledgement and records", &world.request_all(START)?);
    show("refresh", &world.request_all(Timestamp::from_millis(2))?);
    let begin = Instant::now();
    let bytes: usize = world.store.values().map(Vec::len).sum();
    let restored = Registry::restore(config()?, world.store.clone())?;
    println!(
        "restore of {} connections ({} MB): {:?}",
        restored.counts().connections,
        bytes / 1_000_000,
        begin.elapsed()
    );
    let begin = Instant::now();
    world.registry.handle_timeout(Timestamp::from_millis(1_000_000));
    world.flush()?;
    println!(
        "end of every lease, {} left: {:?}",
        world.registry.counts().connections,
        begin.elapsed()
    );
    Ok(())
}
