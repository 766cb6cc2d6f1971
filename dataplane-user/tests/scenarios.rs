//! Floor 1: scripts of what happens to a node, and the state that must come of it.
//!
//! Each `tests/scenarios/*.txt` holds commands (lines that begin with `> `) and behind each what it answers.
//! `UPDATE_EXPECT=1` writes the answers anew. `TIELINE_SCENARIOS=NAME` runs one file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use dataplane_user::{
    desired::{
        Branch, Change, Circuit, Desired, Draining, End, Hop, IfName, InterfaceEnd, Mac, Neighbour, NetnsId,
        NetnsRef, Payload, Policy, Route, Traffic, VethEnd, Wire, WireId,
    },
    fake::{Fake, Fault, Faulty},
    liveness::Notice,
    outcome::{News, Outcome},
    reconcile::{BranchView, ReconcileError, Reconciler},
};

struct Script {
    node: Option<Reconciler<Faulty<Fake>>>,
    inodes: BTreeMap<String, u64>,
    wires: BTreeMap<String, Wire>,
    now: Instant,
}

fn number(id: &str) -> u8 {
    id.trim_start_matches('w').parse().unwrap()
}

/// `any`, or `PROTOCOL:FIRST-LAST` by numbers, several with commas between them.
fn selectors(text: &str) -> Vec<Traffic> {
    if text == "any" {
        return Vec::new();
    }
    let one = |text: &str| {
        let (protocol, ports) = text.split_once(':').unwrap();
        let (first, last) = ports.split_once('-').unwrap();
        Traffic {
            protocol: Some(protocol.parse().unwrap()),
            ports: Some((first.parse().unwrap(), last.parse().unwrap())),
            prefix: None,
        }
    };
    text.split(',').map(one).collect()
}

impl Script {
    fn new() -> Self {
        let mut node = Reconciler::new(Faulty::new(Fake::new("n1", 4), Fault::Never));
        node.adopt().unwrap();
        Self {
            node: Some(node),
            inodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            now: Instant::now(),
        }
    }

    fn node(&mut self) -> &mut Reconciler<Faulty<Fake>> {
        self.node.as_mut().unwrap()
    }

    fn fake(&mut self) -> &mut Fake {
        self.node().datapath_mut().inner_mut()
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["netns", name, inode] => {
                let inode = inode.parse().unwrap();
                self.inodes.entry((*name).to_owned()).or_insert(inode);
                self.fake().add_netns(format!("/run/netns/{name}"), inode);
                String::new()
            }
            ["netns-dies", name] => {
                self.fake().remove_netns(Path::new(&format!("/run/netns/{name}")));
                String::new()
            }
            ["foreign", name] => {
                self.fake().add_foreign(IfName::new(name).unwrap());
                String::new()
            }
            ["guest", netns, name] => {
                let path = format!("/run/netns/{netns}");
                self.fake()
                    .add_guest(Path::new(&path), IfName::new(name).unwrap());
                String::new()
            }
            ["wire", id, client, path @ .., payload] => self.define(id, client, path, payload),
            ["branch", id, traffic, weight, path @ ..] => {
                let branch = Branch {
                    traffic: selectors(traffic),
                    weight: weight.parse().unwrap(),
                    circuit: self.circuit(path, number(id)),
                };
                self.wires.get_mut(*id).unwrap().branches.push(branch);
                String::new()
            }
            ["backup", id, path @ ..] => self.backup(id, path),
            ["mtu", id, mtu] => {
                self.wires.get_mut(*id).unwrap().mtu = mtu.parse().unwrap();
                String::new()
            }
            ["watched"] => self.watched(),
            ["drain", id, path @ ..] => {
                let circuit = self.circuit(path, number(id));
                let wire = self.wires.get_mut(*id).unwrap();
                wire.draining.push(Draining { circuit, branch: 0 });
                String::new()
            }
            ["traffic", id, packets] => self.traffic(id, packets.parse().unwrap()),
            ["promote"] => format!("promoted {}\n", self.node().promote_busy().unwrap()),
            ["refuse", n] => {
                let fault = Fault::At(n.parse().unwrap());
                self.node().datapath_mut().set_fault(fault);
                String::new()
            }
            ["restart"] => {
                let mut fresh = Reconciler::new(self.node.take().unwrap().into_datapath());
                let adopted = fresh.adopt().unwrap();
                self.node = Some(fresh);
                format!("{adopted:?}\n")
            }
            ["dump"] => self.fake().dump(),
            ["stray-rules"] => format!("{}\n", self.fake().stray_rules()),
            _ => self.reconcile(&words),
        }
    }

    /// What the reconciler is told, and what it says.
    fn reconcile(&mut self, words: &[&str]) -> String {
        let now = self.now;
        match words {
            ["snapshot", generation, ids @ ..] => {
                let wires = self
                    .pick(ids)
                    .into_iter()
                    .map(|wire| (wire.id.clone(), wire))
                    .collect();
                let generation = generation.parse().unwrap();
                show(self.node().snapshot(Desired { generation, wires }, now))
            }
            ["change", generation, ids @ ..] => {
                let (gone, new): (Vec<&str>, Vec<&str>) = ids.iter().partition(|id| id.starts_with('-'));
                let remove = gone
                    .iter()
                    .map(|id| WireId(id.trim_start_matches('-').to_owned()))
                    .collect();
                let (upsert, generation) = (self.pick(&new), generation.parse().unwrap());
                let change = Change {
                    generation,
                    upsert,
                    remove,
                };
                show(self.node().change(change, now))
            }
            ["lost", id] => {
                let views = self.node().wires(Some(&[WireId((*id).to_owned())])).unwrap();
                let ends = views.iter().flat_map(|view| view.ends().collect::<Vec<_>>());
                let indexes: Vec<u32> = ends.filter_map(|end| end.ifindex).collect();
                show(self.node().interfaces_lost(&indexes, now))
            }
            ["pass"] => show(self.node().pass(now)),
            [what @ ("dies" | "revives"), id, path @ ..] => {
                let circuit = self.circuit(path, number(id));
                let notice = Notice {
                    path: circuit.path(),
                    endpoint: circuit.endpoint_name,
                    alive: *what == "revives",
                    first: false,
                };
                show(self.node().paths_changed(&[notice], now))
            }
            ["wait", millis] => {
                self.now += Duration::from_millis(millis.parse().unwrap());
                match self.node().lingers_until() {
                    Some(until) if until > self.now => "something lingers\n".to_owned(),
                    _ => String::new(),
                }
            }
            ["end-lingering"] => show(self.node().end_lingering(now)),
            ["packets", id] => self.packets(id),
            _ => panic!("not a command: {}", words.join(" ")),
        }
    }

    /// Where probes are sent, by wire and endpoint.
    fn watched(&mut self) -> String {
        let mut text = String::new();
        for (wire, targets) in self.fake().watched() {
            let at = targets.iter().map(|(_, target)| target.index.to_string());
            writeln!(text, "{wire} at {}", at.collect::<Vec<_>>().join(" ")).unwrap();
        }
        text
    }

    /// Packets enter at the client's end.
    fn traffic(&mut self, id: &str, packets: u64) -> String {
        let views = self.node().wires(Some(&[WireId(id.to_owned())])).unwrap();
        for view in views {
            self.fake().receive(&view.client.host_interface, packets);
        }
        String::new()
    }

    /// Where packets that enter at the client's end come out, function by function.
    fn packets(&mut self, id: &str) -> String {
        let view = self
            .node()
            .wires(Some(&[WireId(id.to_owned())]))
            .unwrap()
            .remove(0);
        let mut functions = BTreeMap::new();
        for hop in view.branches.iter().flat_map(|branch| &branch.hops) {
            functions.insert(
                hop.inside.host_interface.clone(),
                hop.outside.host_interface.clone(),
            );
        }
        let mut at = view.client.host_interface;
        let mut text = "client".to_owned();
        while let Some(to) = self.fake().leads_to(&at).cloned() {
            let end = view
                .branches
                .iter()
                .flat_map(BranchView::ends)
                .find(|end| end.host_interface == to);
            let netns = end.and_then(|end| end.netns.clone()).unwrap();
            write!(text, " -> {}", netns.path.file_name().unwrap().display()).unwrap();
            match functions.get(&to) {
                Some(outside) => at = outside.clone(),
                None => return text + "\n",
            }
        }
        text + " -> nowhere\n"
    }

    /// `path` are functions' namespaces with both interfaces, and an endpoint, or `nowhere`.
    fn define(&mut self, id: &str, client: &str, path: &[&str], payload: &str) -> String {
        let number = number(id);
        let leads = path.last().is_some_and(|last| *last != "nowhere");
        let circuit = leads.then(|| self.circuit(path, number));
        let wire = Wire {
            id: WireId(id.to_owned()),
            network_service: "gold".to_owned(),
            payload: if payload == "ip" {
                Payload::Ip
            } else {
                Payload::Ethernet
            },
            mtu: 1500,
            client: self.end(client, number, 1),
            branches: circuit.map(Branch::all).into_iter().collect(),
            backup: None,
            draining: Vec::new(),
            probe: false,
        };
        self.wires.insert(id.to_owned(), wire);
        String::new()
    }

    /// A way out, and probes that find out when it is needed.
    fn backup(&mut self, id: &str, path: &[&str]) -> String {
        let circuit = self.circuit(path, number(id));
        let wire = self.wires.get_mut(id).unwrap();
        (wire.backup, wire.probe) = (Some(circuit), true);
        // A probe seems to come from the client, and goes to its neighbour.
        if let End::Veth(client) = &mut wire.client {
            client.neighbours = vec![Neighbour {
                ip: [10, 0, number(id), 2].into(),
                mac: Mac([2, 0, 0, 0, number(id), 2]),
            }];
        }
        String::new()
    }

    fn circuit(&self, path: &[&str], number: u8) -> Circuit {
        let (endpoint, hops) = path.split_last().unwrap();
        Circuit {
            hops: hops.iter().map(|hop| self.hop(hop, number)).collect(),
            endpoint_name: endpoint.split(':').next().unwrap().to_owned(),
            endpoint: self.end(endpoint, number, 2),
        }
    }

    /// `netns:inside:outside`, or `netns:inside:outside+prefix` for a route of the circuit behind the function.
    fn hop(&self, text: &str, number: u8) -> Hop {
        let (text, prefix) = text.split_once('+').unwrap_or((text, ""));
        let (netns, names) = text.split_once(':').unwrap();
        let (inside, outside) = names.split_once(':').unwrap();
        let routes = prefix.parse().map(|prefix| Route {
            prefix,
            next_hop: None,
        });
        let policy = routes.ok().map(|route| Policy {
            input: Some(IfName::new(inside).unwrap()),
            routes: vec![route],
            ..Policy::default()
        });
        let end = |name, side, policies| match self.end(&format!("{netns}:{name}"), number, side) {
            End::Veth(end) => End::Veth(VethEnd {
                addresses: Vec::new(),
                forwards: true,
                policies,
                ..end
            }),
            End::Interface(_) => panic!("{text} is no function"),
        };
        Hop {
            endpoint_name: netns.to_owned(),
            inside: end(inside, 2, Vec::new()),
            outside: end(outside, 1, policy.into_iter().collect()),
        }
    }

    /// `netns:interface`, or the name of an existing interface.
    fn end(&self, text: &str, number: u8, side: u8) -> End {
        let Some((netns, name)) = text.split_once(':') else {
            return End::Interface(InterfaceEnd {
                name: IfName::new(text).unwrap(),
            });
        };
        let inode = self.inodes.get(netns).copied().unwrap_or(0);
        End::Veth(VethEnd {
            netns: NetnsRef {
                path: format!("/run/netns/{netns}").into(),
                id: NetnsId { device: 4, inode },
            },
            name: IfName::new(name).unwrap(),
            mac: Mac([2, 0, 0, 0, number, side]),
            addresses: vec![format!("10.0.{number}.{side}/30").parse().unwrap()],
            routes: Vec::new(),
            neighbours: Vec::new(),
            forwards: false,
            policies: Vec::new(),
            name_servers: Vec::new(),
        })
    }

    fn pick(&self, ids: &[&str]) -> Vec<Wire> {
        ids.iter()
            .map(|id| {
                self.wires
                    .get(*id)
                    .unwrap_or_else(|| panic!("no wire {id}"))
                    .clone()
            })
            .collect()
    }
}

fn show(result: Result<Outcome, ReconcileError>) -> String {
    let mut text = String::new();
    match result {
        Err(error) => writeln!(text, "error: {error}").unwrap(),
        Ok(outcome) => {
            writeln!(
                text,
                "generation {} operations {}",
                outcome.generation, outcome.operations
            )
            .unwrap();
            for failure in outcome.failures {
                writeln!(
                    text,
                    "failed {} {:?}: {}",
                    failure.wire, failure.kind, failure.message
                )
                .unwrap();
            }
            for id in outcome.lost {
                writeln!(text, "lost {id}").unwrap();
            }
            for id in outcome.restored {
                writeln!(text, "restored {id}").unwrap();
            }
            text.push_str(&show_news(&outcome.news));
            for postponed in outcome.postponed {
                writeln!(text, "postponed: {}", postponed.message).unwrap();
            }
        }
    }
    text
}

fn show_news(news: &News) -> String {
    let mut text = String::new();
    for (endpoint, why) in &news.dead {
        writeln!(text, "dead {endpoint}: {why}").unwrap();
    }
    for endpoint in &news.alive {
        writeln!(text, "alive {endpoint}").unwrap();
    }
    for (what, wires) in [
        ("switched", &news.switched),
        ("still switched", &news.still_switched),
        ("unanswered", &news.unanswered),
        ("drained", &news.drained),
    ] {
        for (wire, endpoint) in wires {
            writeln!(text, "{what} {wire}: {endpoint}").unwrap();
        }
    }
    text
}

fn play(script: &str) -> String {
    let mut state = Script::new();
    let mut answer = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(answer, "{line}").unwrap();
            answer.push_str(&state.run(command));
        } else if line.starts_with('#') {
            writeln!(answer, "{line}").unwrap();
        }
    }
    answer
}

#[test]
fn every_scenario_answers_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let only = std::env::var("TIELINE_SCENARIOS").ok();
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if only
            .as_ref()
            .is_some_and(|only| path.file_stem().is_none_or(|stem| stem != only.as_str()))
        {
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        let found = play(&expected);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, found).unwrap();
        } else {
            assert_eq!(
                found,
                expected,
                "{}: UPDATE_EXPECT=1 writes it anew",
                path.display()
            );
        }
        played += 1;
    }
    assert!(played > 0, "no scenario was found");
}
