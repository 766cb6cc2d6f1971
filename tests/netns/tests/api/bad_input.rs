//! Each refusal: its code, its field, its value, the rule, and that nothing changed.

use tieline_proto::{
    connectioncontext::{ConnectionContext, IpContext},
    networkservice::NetworkServiceRequest,
};
use tieline_tests_netns::{Wire, endpoint, netns_url, request, with_interface};
use tonic::{Code, Status};

use super::{SERVICE, Stage};

/// A call that must be refused, and what the refusal must say.
pub(super) struct Refusal<'a> {
    pub(super) about: &'static str,
    pub(super) outcome: Result<(), Status>,
    pub(super) codes: &'a [Code],
    pub(super) says: Vec<String>,
}

impl Refusal<'_> {
    pub(super) fn assert(&self) {
        let about = self.about;
        assert!(self.outcome.is_err(), "{about}: was not refused");
        let Err(status) = &self.outcome else { return };
        assert!(self.codes.contains(&status.code()), "{about}: {status:?}");
        for word in &self.says {
            assert!(
                status.message().contains(word.as_str()),
                "{about}: no {word:?} in {:?}",
                status.message()
            );
        }
    }
}

const INVALID: &[Code] = &[Code::InvalidArgument];

fn edit(stage: &Stage, change: impl FnOnce(&mut NetworkServiceRequest)) -> NetworkServiceRequest {
    let mut request = stage.request("refused");
    change(&mut request);
    request
}

/// A request that is refused for what it says, whatever the state.
struct Wrong {
    about: &'static str,
    code: Code,
    says: Vec<String>,
    request: NetworkServiceRequest,
}

fn wrong(about: &'static str, code: Code, says: &[&str], request: NetworkServiceRequest) -> Wrong {
    let says = says.iter().map(ToString::to_string).collect();
    Wrong {
        about,
        code,
        says,
        request,
    }
}

fn wrong_names(stage: &Stage) -> Vec<Wrong> {
    let client = netns_url(&stage.client);
    let named = |name| with_interface(stage.request("refused"), name);
    let service = |name| request("refused", name, &client);
    let no_id = edit(stage, |request| request.connection.as_mut().unwrap().id.clear());
    let empty = NetworkServiceRequest::default();
    vec![
        wrong(
            "unknown service",
            Code::NotFound,
            &["network_service", "no-such-service"],
            service("no-such-service"),
        ),
        wrong(
            "no service",
            Code::InvalidArgument,
            &["network_service"],
            service(""),
        ),
        wrong("no connection", Code::InvalidArgument, &["connection"], empty),
        wrong("no id", Code::InvalidArgument, &["connection.id"], no_id),
        wrong(
            "16 bytes",
            Code::InvalidArgument,
            &["name", "sixteen-bytes-xx", "15"],
            named("sixteen-bytes-xx"),
        ),
        wrong("a slash", Code::InvalidArgument, &["name", "a/b"], named("a/b")),
    ]
}

fn wrong_namespaces(stage: &Stage) -> Vec<Wrong> {
    let at = |url: &str| request("refused", SERVICE, url);
    let own = netns_url(stage.node.netns());
    let (gone, file, relative) = (
        "file:///run/netns/tl-no-such",
        "file:///etc/hostname",
        "file://run/netns/x",
    );
    vec![
        wrong("missing", Code::NotFound, &["inodeURL", gone], at(gone)),
        wrong(
            "not a namespace",
            Code::InvalidArgument,
            &["inodeURL", file],
            at(file),
        ),
        wrong(
            "relative",
            Code::InvalidArgument,
            &["inodeURL", relative],
            at(relative),
        ),
        wrong(
            "the node's own",
            Code::InvalidArgument,
            &["inodeURL", &own],
            at(&own),
        ),
    ]
}

fn wrong_mechanisms(stage: &Stage) -> Vec<Wrong> {
    let mechanism = |cls: &str, kind: &str| {
        edit(stage, |request| {
            let mechanism = &mut request.mechanism_preferences[0];
            cls.clone_into(&mut mechanism.cls);
            kind.clone_into(&mut mechanism.r#type);
        })
    };
    let payload = edit(stage, |request| {
        request.connection.as_mut().unwrap().payload = "MPLS".to_owned();
    });
    let other = edit(stage, |request| {
        request.connection.as_mut().unwrap().payload = "ETHERNET".to_owned();
    });
    vec![
        wrong(
            "MEMIF",
            Code::InvalidArgument,
            &["mechanism", "MEMIF", "KERNEL"],
            mechanism("LOCAL", "MEMIF"),
        ),
        wrong(
            "REMOTE",
            Code::InvalidArgument,
            &["mechanism", "REMOTE", "LOCAL"],
            mechanism("REMOTE", "KERNEL"),
        ),
        wrong("payload", Code::InvalidArgument, &["payload", "MPLS"], payload),
        wrong(
            "the other payload",
            Code::InvalidArgument,
            &["payload", "ETHERNET", "IP"],
            other,
        ),
    ]
}

fn wrong_contexts(stage: &Stage) -> Vec<Wrong> {
    let label = |key: &str, value: &str| {
        edit(stage, |request| {
            let labels = &mut request.connection.as_mut().unwrap().labels;
            labels.insert(key.to_owned(), value.to_owned());
        })
    };
    let context = |ip: IpContext, mtu: u32| {
        edit(stage, |request| {
            let context = ConnectionContext {
                ip_context: Some(ip),
                mtu,
                ..ConnectionContext::default()
            };
            request.connection.as_mut().unwrap().context = Some(context);
        })
    };
    let excluded = |prefix: &str| IpContext {
        excluded_prefixes: vec![prefix.to_owned()],
        ..IpContext::default()
    };
    let source = |address: &str| IpContext {
        src_ip_addrs: vec![address.to_owned()],
        ..IpContext::default()
    };
    let (prefix, address) = ("10.0.0.0/33", "10.0.0.256/32");
    vec![
        wrong(
            "label key",
            Code::InvalidArgument,
            &["labels", "bad key!"],
            label("bad key!", "x"),
        ),
        wrong(
            "label value",
            Code::InvalidArgument,
            &["labels", "bad value!"],
            label("app", "bad value!"),
        ),
        wrong(
            "prefix",
            Code::InvalidArgument,
            &["excluded_prefixes", prefix],
            context(excluded(prefix), 0),
        ),
        wrong(
            "address",
            Code::InvalidArgument,
            &["src_ip_addrs", address],
            context(source(address), 0),
        ),
        wrong(
            "MTU",
            Code::InvalidArgument,
            &["MTU", "1279", "1280"],
            context(IpContext::default(), 1279),
        ),
    ]
}

#[test]
fn wrong_requests_are_refused_with_field_value_and_rule_and_change_nothing() {
    let stage = Stage::new();
    Wire::request(&stage.api, stage.request("bystander")).unwrap();
    let before = stage.state();
    let groups = [
        wrong_names(&stage),
        wrong_namespaces(&stage),
        wrong_mechanisms(&stage),
        wrong_contexts(&stage),
    ];
    for Wrong {
        about,
        code,
        says,
        request,
    } in groups.into_iter().flatten()
    {
        let outcome = stage.api.request(request).map(drop);
        Refusal {
            about,
            outcome,
            codes: &[code],
            says,
        }
        .assert();
    }
    assert_eq!(stage.state(), before, "a refused request left something");
}

#[test]
fn wrong_registrations_are_refused_with_field_and_value() {
    let stage = Stage::new();
    let before = stage.state();
    let refused = |about, codes, says: &[&str], endpoint| Refusal {
        about,
        outcome: stage.api.register(endpoint).map(drop),
        codes,
        says: says.iter().map(ToString::to_string).collect(),
    };
    let gone = "file:///run/netns/tl-no-such-namespace";
    for refusal in [
        refused(
            "no such interface",
            &[Code::NotFound],
            &["url", "absent0"],
            endpoint("e", SERVICE, "interface:///absent0"),
        ),
        refused(
            "interface name",
            INVALID,
            &["url", "sixteen"],
            endpoint("e", SERVICE, "interface:///sixteen-bytes-xx"),
        ),
        refused(
            "no such namespace",
            &[Code::NotFound],
            &["url", gone],
            endpoint("e", SERVICE, gone),
        ),
        refused(
            "another scheme",
            INVALID,
            &["url", "http://x"],
            endpoint("e", SERVICE, "http://x"),
        ),
        refused(
            "name",
            INVALID,
            &["name", "Not A Name"],
            endpoint("Not A Name", SERVICE, &netns_url(&stage.client)),
        ),
    ] {
        refusal.assert();
    }
    assert_eq!(stage.state(), before);
}
