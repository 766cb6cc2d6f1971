//! A world of services, endpoints and wirings, written in lines.
//!
//! * `service NAME [selector:a=b,…] [order:KEY=v1,v2] [policy:P] [payload:ETHERNET]`
//! * `match [SOURCE] -> [SEL[*WEIGHT] | SEL…] [fallthrough]`: one more match of the last service
//! * `wiring NAME[@PRIORITY] TARGET[,TARGET…] [from:[!]SERVICE] [pod:SEL] [client:SEL] [on:PROTOCOL[/PORTS]] -> SEL[*WEIGHT] | …`
//! * `endpoint NAME SERVICE[,…] [says:LABELS] [proven:LABELS] [as:PLUMBING] [at:N] [tap] [node:N] [drained] [dead] [load:N] [held:ID]`
//! * `client [says:LABELS] [proven:LABELS] [at:N] [wants:NAME] [asks:SERVICE] [now:PATH[+PATH]] [avoids:NAME,…]`
//!
//! Every endpoint has a namespace of its own unless `at` names another one's; the client is in namespace 0.

use std::{collections::BTreeMap, sync::Arc};

use tieline_model::{
    Attachment, Chosen, ConnectionId, Destination, EndpointName, Labels, Match, MatchSelector, NetnsId,
    NetnsRef, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, NodeName, Payload, Plumbing,
    ServiceSelector, TrafficSelector, WiringRoute, WiringSource,
};

use crate::{BranchPath, Class, Client, Inventory, SelectError, SelectInput, Selection, Usage, select};

pub(crate) struct World {
    pub(crate) inventory: Inventory,
    loads: BTreeMap<EndpointName, usize>,
    holders: BTreeMap<EndpointName, ConnectionId>,
    pub(crate) client: Asker,
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Asker {
    service: String,
    node: NodeName,
    netns: NetnsRef,
    labels: Labels,
    attested: Labels,
    wanted: Option<EndpointName>,
    pub(crate) current: Vec<BranchPath>,
    pub(crate) avoid: Vec<EndpointName>,
    pub(crate) told: BTreeMap<Class, EndpointName>,
}

impl Usage for World {
    fn connections(&self, endpoint: &EndpointName) -> usize {
        self.loads.get(endpoint).copied().unwrap_or_default()
    }

    fn holder(&self, endpoint: &NetworkServiceEndpoint) -> Option<&ConnectionId> {
        self.holders.get(endpoint.name())
    }
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    };
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect()
}

fn labels(text: &str) -> Labels {
    Labels::parse("labels", pairs(text)).unwrap()
}

fn netns(n: u64) -> NetnsRef {
    let id = NetnsId { device: 4, inode: n };
    NetnsRef::parse("netns", &format!("/run/netns/w{n}"), Some(id)).unwrap()
}

/// `SEL*WEIGHT | SEL` as selectors and weights.
fn destinations(text: &str) -> Vec<(String, u32)> {
    let one = |part: &str| match part.trim().rsplit_once('*') {
        Some((selector, weight)) => (selector.to_owned(), weight.parse().unwrap()),
        None => (part.trim().to_owned(), 0),
    };
    text.split('|')
        .filter(|part| !part.trim().is_empty())
        .map(one)
        .collect()
}

impl World {
    pub(crate) fn new(lines: &[&str]) -> Self {
        let mut world = Self {
            inventory: Inventory::default(),
            loads: BTreeMap::new(),
            holders: BTreeMap::new(),
            client: Asker {
                service: "gold".to_owned(),
                node: "n1".parse().unwrap(),
                netns: netns(0),
                labels: Labels::default(),
                attested: Labels::default(),
                wanted: None,
                current: Vec::new(),
                avoid: Vec::new(),
                told: BTreeMap::new(),
            },
        };
        lines.iter().for_each(|line| world.line(line));
        world
    }

    /// Carries out one more line.
    pub(crate) fn line(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "service" => self.inventory.put_service(Arc::new(service(rest))),
            "match" => self.add_match(rest),
            "wiring" => self.inventory.put_wiring(Arc::new(wiring(rest))),
            "endpoint" => self.endpoint(rest),
            "client" => self.client(rest),
            other => panic!("{other}"),
        }
    }

    fn add_match(&mut self, text: &str) {
        let services = self.inventory.services();
        let last = services.get(self.client.service.as_str()).unwrap();
        let mut matches = last.matches().to_vec();
        let (source, to) = text.split_once("->").unwrap();
        let plain = to.trim().strip_suffix("fallthrough");
        let selector = |text: &str| MatchSelector::parse("selector", pairs(text)).unwrap();
        let route = |(to, weight): (String, u32)| Destination {
            destination_selector: selector(&to),
            weight,
        };
        matches.push(Match {
            source_selector: selector(source.trim()),
            routes: destinations(plain.unwrap_or(to)).into_iter().map(route).collect(),
            fallthrough: plain.is_some(),
            metadata: None,
        });
        let changed = NetworkService::clone(last).with_matches(matches).unwrap();
        self.inventory.put_service(Arc::new(changed));
    }

    fn endpoint(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        let (name, services) = (words.next().unwrap(), words.next().unwrap());
        let (mut says, mut proven, mut plumbing, mut tap) = ("", "", None, false);
        let (mut node, mut drained, mut dead) = ("n1", false, false);
        let name: EndpointName = name.parse().unwrap();
        let mut at = 1 + name
            .as_str()
            .bytes()
            .fold(7, |hash: u64, b| hash * 131 % 1_000_003 + u64::from(b));
        for word in words {
            match word.split_once(':') {
                Some(("says", text)) => says = text,
                Some(("proven", text)) => proven = text,
                Some(("as", text)) => plumbing = Some(text.parse::<Plumbing>().unwrap()),
                Some(("at", n)) => at = n.parse().unwrap(),
                Some(("node", text)) => node = text,
                Some(("load", n)) => drop(self.loads.insert(name.clone(), n.parse().unwrap())),
                Some(("held", id)) => drop(self.holders.insert(name.clone(), id.parse().unwrap())),
                _ => match word {
                    "tap" => tap = true,
                    "drained" => drained = true,
                    "dead" => dead = true,
                    other => panic!("{other}"),
                },
            }
        }
        let services = services
            .split(',')
            .map(|one| (one.parse().unwrap(), labels(says)))
            .collect();
        let attachment = if tap {
            Attachment::Interface("tap0".parse().unwrap())
        } else {
            Attachment::Netns(netns(at))
        };
        let endpoint =
            NetworkServiceEndpoint::declared(name.clone(), services, node.parse().unwrap(), attachment);
        let endpoint = endpoint
            .unwrap()
            .with_attested(labels(proven))
            .with_draining(drained);
        self.inventory
            .put_endpoint(Arc::new(endpoint.with_plumbing(plumbing).unwrap()));
        self.inventory.set_dead(&name, dead);
    }

    fn client(&mut self, text: &str) {
        for word in text.split_whitespace() {
            match word.split_once(':').unwrap() {
                ("says", text) => self.client.labels = labels(text),
                ("proven", text) => self.client.attested = labels(text),
                ("at", n) => self.client.netns = netns(n.parse().unwrap()),
                ("wants", name) => self.client.wanted = Some(name.parse().unwrap()),
                ("asks", name) => name.clone_into(&mut self.client.service),
                ("now", text) => self.client.current = text.split('+').map(path).collect(),
                ("avoids", text) => {
                    self.client.avoid = text.split(',').map(|name| name.parse().unwrap()).collect();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the client is given at a turn.
    pub(crate) fn ask(&self, turn: u64) -> Result<Selection, SelectError> {
        self.asking(turn, |input| select(&self.inventory, self, &input))
    }

    pub(crate) fn asking<T>(&self, turn: u64, then: impl FnOnce(SelectInput<'_>) -> T) -> T {
        let client = &self.client;
        let id: ConnectionId = "c1".parse().unwrap();
        let service = self.inventory.services().get(client.service.as_str()).unwrap();
        then(SelectInput {
            id: &id,
            service,
            client: Client {
                node: &client.node,
                netns: &client.netns,
                labels: &client.labels,
                attested: &client.attested,
            },
            wanted: client.wanted.as_ref(),
            current: &client.current,
            told: &client.told,
            avoid: &client.avoid,
            turn,
        })
    }

    /// The ways that the client is given at the first `turns` turns, each as its branches: `tcp/80=dpi>gw + gw`.
    pub(crate) fn ways(&self, turns: u64) -> Result<Vec<String>, SelectError> {
        (0..turns)
            .map(|turn| self.ask(turn).map(|selection| way(&selection.branches)))
            .collect()
    }
}

/// `fw>gw` as a path: all but the last one pass packets on.
fn path(text: &str) -> BranchPath {
    let names: Vec<&str> = text.split('>').collect();
    let chosen = |(i, name): (usize, &&str)| Chosen {
        endpoint: name.parse().unwrap(),
        plumbing: if i + 1 < names.len() {
            Plumbing::Gateway
        } else {
            Plumbing::Endpoint
        },
    };
    BranchPath {
        wiring: None,
        traffic: Vec::new(),
        weight: 1,
        path: names.iter().enumerate().map(chosen).collect(),
    }
}

pub(crate) fn way(branches: &[BranchPath]) -> String {
    let branch = |branch: &BranchPath| {
        let path: Vec<&str> = branch.names().map(EndpointName::as_str).collect();
        let traffic: Vec<String> = branch.traffic.iter().map(ToString::to_string).collect();
        let traffic = if traffic.is_empty() {
            String::new()
        } else {
            traffic.join(",") + "="
        };
        traffic + &path.join(">")
    };
    branches.iter().map(branch).collect::<Vec<_>>().join(" + ")
}

fn service(text: &str) -> NetworkService {
    let mut words = text.split_whitespace();
    let mut service = NetworkService::new(words.next().unwrap().parse().unwrap());
    for word in words {
        service = match word.split_once(':').unwrap() {
            ("selector", text) => service.with_selector(labels(text)),
            ("order", text) => {
                let (key, values) = text.split_once('=').unwrap();
                let values: Vec<String> = values.split(',').map(str::to_owned).collect();
                service.with_selector(
                    ServiceSelector::ordered("order", key, &values, &Labels::default()).unwrap(),
                )
            }
            ("policy", word) => service.with_policy(word.parse().unwrap()),
            ("payload", word) => service.with_payload(Payload::parse("payload", word).unwrap()),
            other => panic!("{other:?}"),
        };
    }
    service
}

pub(crate) fn wiring(text: &str) -> NetworkServiceWiring {
    let (head, to) = text.split_once("->").unwrap();
    let mut words = head.split_whitespace();
    let name = words.next().unwrap();
    let (name, priority) = name.split_once('@').unwrap_or((name, "0"));
    let target = words
        .next()
        .unwrap()
        .split(',')
        .map(|name| name.parse().unwrap())
        .collect();
    let (mut source, mut traffic) = (WiringSource::default(), Vec::new());
    for word in words {
        match word.split_once(':').unwrap() {
            ("from", text) => source.source_service = Some(text.parse().unwrap()),
            ("pod", text) => source.pod_selector = text.parse().unwrap(),
            ("client", text) => source.client_selector = text.parse().unwrap(),
            ("on", text) => {
                let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
                traffic.push(TrafficSelector::parse("traffic", protocol, ports, "").unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    let route = |(to, weight): (String, u32)| WiringRoute {
        pod_selector: to.parse().unwrap(),
        weight,
    };
    let routes = if to.trim().is_empty() {
        vec![WiringRoute::default()]
    } else {
        destinations(to).into_iter().map(route).collect()
    };
    NetworkServiceWiring::new(name.parse().unwrap(), target, routes)
        .unwrap()
        .with_priority(priority.parse().unwrap())
        .unwrap()
        .with_source(source)
        .with_traffic(traffic)
        .unwrap()
}
