use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::parse("labels", pairs.iter().copied()).unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

#[test]
fn an_unequal_term_holds_when_the_label_is_missing() {
    let selector = selector("app=gw,tier!=test");
    assert!(selector.matches(&labels(&[("app", "gw")])));
    assert!(selector.matches(&labels(&[("app", "gw"), ("tier", "live")])));
    assert!(!selector.matches(&labels(&[("app", "gw"), ("tier", "test")])));
    assert!(!selector.matches(&labels(&[])));
}

#[test]
fn every_form_of_a_term_reads_and_writes_and_means_what_it_says() {
    let has = labels(&[("app", "gw"), ("tier", "")]);
    for (text, written, holds) in [
        ("app==gw", "app=gw", true),
        ("app = gw , tier =", "app=gw,tier=", true),
        ("app in (fw, gw)", "app in (fw,gw)", true),
        ("app in (gw)", "app=gw", true),
        ("app notin (fw,dpi)", "app notin (dpi,fw)", true),
        ("app notin (gw)", "app!=gw", false),
        ("tier", "tier", true),
        ("zone", "zone", false),
        ("!zone,!app", "!app,!zone", false),
        ("example.com/a notin (b),app", "app,example.com/a!=b", true),
        ("  ", "", true),
    ] {
        let read = selector(text);
        assert_eq!(read.to_string(), written);
        assert_eq!(read.matches(&has), holds, "{text}");
        assert_eq!(selector(&read.to_string()), read, "{text}");
    }
}

#[test]
fn a_selector_that_is_no_list_of_terms_is_refused() {
    for bad in [
        "=x",
        "a=b,",
        "a=b c",
        "a>b",
        "a in b",
        "a in (b",
        "a on (b)",
        "in (b)",
        "!",
        "a b",
        "a in (b,-)",
        "!a=b",
    ] {
        assert!(bad.parse::<Selector>().is_err(), "{bad}");
    }
}

#[test]
fn terms_that_nothing_can_satisfy_are_refused_by_their_key() {
    for bad in [
        "a=b,a=c",
        "a=b,a!=b",
        "a,!a",
        "a=b,!a",
        "a in (b,c),a notin (b,c,d)",
    ] {
        let error = Selector::parse("podSelector", bad).unwrap_err();
        assert_eq!(error.field, "podSelector[a]", "{bad}");
        assert!(error.rule.contains("contradict"), "{error}");
    }
    for good in ["a!=b,!a", "a in (b,c),a!=b", "a=b,a", "a=b,a=b"] {
        assert!(good.parse::<Selector>().is_ok(), "{good}");
    }
}

#[test]
fn values_belong_to_in_and_notin_alone() {
    let with = |operator, values: &[&str]| Requirement::new("e", "a", operator, values.iter().copied());
    assert!(with(Operator::In, &[]).is_err() && with(Operator::NotIn, &[]).is_err());
    assert!(with(Operator::Exists, &["b"]).is_err() && with(Operator::DoesNotExist, &["b"]).is_err());
    assert!(with(Operator::Exists, &[]).is_ok() && with(Operator::In, &["b", ""]).is_ok());
}

#[test]
fn only_one_value_for_each_key_is_a_map() {
    assert_eq!(
        selector("a=b,c=d").as_pairs().unwrap(),
        BTreeMap::from([("a", "b"), ("c", "d")])
    );
    assert_eq!(selector("").as_pairs().unwrap(), BTreeMap::new());
    for other in ["a!=b", "a", "a in (b,c)"] {
        assert_eq!(selector(other).as_pairs(), None, "{other}");
    }
}

fn a_selector() -> impl Strategy<Value = Selector> {
    let value = || prop::collection::btree_set("[xyz]", 1..3);
    let term = ("[ab]", 0..4_usize, value()).prop_map(|(key, operator, values)| {
        let operator = Operator::ALL[operator];
        let values = values.into_iter().filter(|_| operator.takes_values());
        Requirement::new("t", &key, operator, values).unwrap()
    });
    prop::collection::vec(term, 0..4).prop_filter_map("contradictory", |terms| Selector::new("s", terms).ok())
}

/// Every set of labels over the keys and values that `a_selector` speaks of, and one value that it does not.
fn universe() -> Vec<Labels> {
    let values = [None, Some("x"), Some("y"), Some("z"), Some("w")];
    let of = |a: Option<&'static str>, b: Option<&'static str>| {
        Labels::parse(
            "l",
            [("a", a), ("b", b)]
                .into_iter()
                .filter_map(|(k, v)| Some((k, v?))),
        )
        .unwrap()
    };
    values
        .iter()
        .flat_map(|a| values.iter().map(move |b| of(*a, *b)))
        .collect()
}

proptest! {
    #[test]
    fn implying_and_meeting_are_what_the_labels_say(one in a_selector(), other in a_selector()) {
        let universe = universe();
        let implied = universe.iter().all(|labels| !one.matches(labels) || other.matches(labels));
        let met = universe.iter().any(|labels| one.matches(labels) && other.matches(labels));
        prop_assert_eq!(one.implies(&other), implied, "{} => {}", one, other);
        prop_assert_eq!(one.meets(&other), met, "{} & {}", one, other);
    }
}
