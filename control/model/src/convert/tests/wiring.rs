//! Wirings, through the API, files and records.

use super::*;
use crate::{
    NetworkServiceWiring, Operator, Ports, Protocol, Requirement, Selector, TrafficSelector, WiringRoute,
    WiringSource,
};

fn selector() -> impl Strategy<Value = Selector> {
    let term = (
        "[a-z]{1,6}",
        0..4_usize,
        collection::btree_set("([a-z]{1,4})?", 1..3),
    );
    let term = term.prop_map(|(key, operator, values)| {
        let operator = Operator::ALL[operator];
        let values = values
            .into_iter()
            .filter(|_| matches!(operator, Operator::In | Operator::NotIn));
        Requirement::new("t", &key, operator, values).unwrap()
    });
    collection::vec(term, 0..4).prop_filter_map("contradictory", |terms| Selector::new("s", terms).ok())
}

fn traffic() -> impl Strategy<Value = TrafficSelector> {
    let ports = (1_u16.., 0_u16..100)
        .prop_map(|(first, more)| Ports::new("p", first, first.saturating_add(more)).unwrap());
    (
        option::of(0..Protocol::ALL.len()),
        option::of(ports),
        option::of(prefix()),
    )
        .prop_filter_map("nothing is given", |(protocol, ports, prefix)| {
            let protocol = protocol.map(|i| Protocol::ALL[i]);
            TrafficSelector::new("t", protocol, ports, prefix).ok()
        })
}

prop_compose! {
    fn a_wiring()(
        (name, target) in (name(), collection::btree_set(name(), 1..3)), priority in -1000..1000,
        (service, negated) in (option::of(name()), any::<bool>()), (pod_selector, client_selector) in (selector(), selector()),
        traffic in collection::vec(traffic(), 0..3), route in collection::btree_map(selector(), 0_u32..100, 1..4),
    ) -> NetworkServiceWiring {
        let sign = if negated { "!" } else { "" };
        let source = WiringSource {
            source_service: service.map(|name| format!("{sign}{name}").parse().unwrap()), pod_selector, client_selector,
        };
        let route = route.into_iter().map(|(pod_selector, weight)| WiringRoute { pod_selector, weight }).collect();
        let target = target.iter().map(|name| name.parse().unwrap()).collect();
        let wiring = NetworkServiceWiring::new(name.parse().unwrap(), target, route).unwrap()
            .with_priority(priority).unwrap().with_source(source);
        wiring.clone().with_traffic(traffic).unwrap_or(wiring)
    }
}

proptest! {
    #[test]
    fn a_wiring_survives_the_api_files_and_records(wiring in a_wiring()) {
        let object = Object::NetworkServiceWiring(wiring.clone());
        let message = tieline::admin::v1::Object::from(&object);
        prop_assert_eq!(Object::try_from(message).unwrap(), object.clone());
        let text = crate::yaml::render(std::slice::from_ref(&object)).unwrap();
        prop_assert_eq!(crate::yaml::parse(&text, None).unwrap(), [object], "{}", text);
        let record = serde_json::to_string(&wiring).unwrap();
        prop_assert_eq!(serde_json::from_str::<NetworkServiceWiring>(&record).unwrap(), wiring);
    }
}

#[test]
fn a_spoilt_wiring_message_names_its_field() {
    use tieline::admin::v1::{
        NetworkServiceWiring as Message, TrafficSelector as Traffic, WiringRoute as Route,
        WiringSource as Source,
    };
    let good = || Message {
        name: "w".to_owned(),
        target: vec!["gold".to_owned()],
        source: Some(Source::default()),
        route: vec![Route::default()],
        ..Message::default()
    };
    assert!(NetworkServiceWiring::try_from(good()).is_ok());
    let spoilt = |spoil: fn(&mut Message, &mut Source, &mut Route)| {
        let mut message = good();
        let (mut source, mut route) = (Source::default(), Route::default());
        spoil(&mut message, &mut source, &mut route);
        (message.source, message.route) = (Some(source), vec![route]);
        NetworkServiceWiring::try_from(message).unwrap_err().field
    };
    assert_eq!(spoilt(|m, _, _| m.name.clear()), "name");
    assert_eq!(spoilt(|m, _, _| m.target[0].push('!')), "target[0]");
    assert_eq!(spoilt(|m, _, _| m.priority = i32::MIN), "priority");
    assert_eq!(
        spoilt(|_, s, _| s.source_service.push('!')),
        "source.source_service"
    );
    assert_eq!(
        spoilt(|_, s, _| s.pod_selector.push_str("a,!a")),
        "source.pod_selector[a]"
    );
    assert_eq!(
        spoilt(|_, s, _| s.client_selector.push_str("a>b")),
        "source.client_selector"
    );
    assert_eq!(
        spoilt(|_, _, r| r.pod_selector.push_str("a=b,")),
        "route[0].pod_selector"
    );
    assert_eq!(spoilt(|m, _, _| m.traffic.push(Traffic::default())), "traffic[0]");
    assert_eq!(
        spoilt(|m, _, _| m.traffic = vec![Traffic::default(); 9]),
        "traffic"
    );
}

#[test]
fn an_endpoint_is_plumbed_in_one_way_whatever_the_service() {
    let message = |silver: &str| {
        let own = |word: &str| registry::NetworkServiceLabels {
            labels: HashMap::from([(crate::PLUMBING_LABEL.to_owned(), word.to_owned())]),
        };
        registry::NetworkServiceEndpoint {
            name: "e".to_owned(),
            network_service_names: vec!["gold".to_owned(), "silver".to_owned()],
            network_service_labels: HashMap::from([
                ("gold".to_owned(), own("gateway")),
                ("silver".to_owned(), own(silver)),
            ]),
            ..Default::default()
        }
    };
    let read = EndpointRegistration::try_from(message("gateway")).unwrap();
    assert_eq!(read.plumbing, Some(crate::Plumbing::Gateway));
    assert!(
        read.services().values().all(Labels::is_empty),
        "it is no label of the endpoint"
    );
    for (word, rule) in [
        ("transparent", "in one way"),
        ("firewall", "a plumbing is one of"),
    ] {
        let error = EndpointRegistration::try_from(message(word)).unwrap_err();
        assert_eq!(
            error.field,
            "network_service_labels[silver].labels[tieline.io/plumbing]"
        );
        assert!(error.rule.contains(rule), "{error}");
    }
}
