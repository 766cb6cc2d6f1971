use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::desired::{IfName, NetnsId, NetnsRef};

const NOWHERE: NetnsId = NetnsId { device: 0, inode: 0 };
const UID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

/// A folder with files that nobody else may write.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file in place as one should: whole, by its name.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (draft, path) = (self.path(".draft"), self.path(name));
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&draft, &path).unwrap();
        path
    }

    fn workloads(&self, text: &str) -> Attested {
        Attested::new(&[self.put("workloads.yaml", text)], None)
    }

    fn pods(&self) -> Attested {
        Attested::new(&[], Some(self.folder.path()))
    }
}

fn facts(cgroup: &str, uid: u32) -> Facts {
    let netns = NetnsRef {
        path: "/run/netns/tl-nowhere".into(),
        id: NOWHERE,
    };
    Facts {
        place: Place::Netns(netns),
        cgroup: Some(cgroup.to_owned()),
        uid: Some(uid),
    }
}

/// The labels in order, as `a=b,c=d`.
fn labels(attested: &Attested, facts: &Facts) -> Result<String, LabelsError> {
    let mut pairs: Vec<_> = attested.labels_of(facts)?.into_iter().collect();
    pairs.sort();
    let texts: Vec<_> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(texts.join(","))
}

#[test]
fn without_sources_a_workload_has_no_labels() {
    let attested = Attested::new(&[], None);
    assert_eq!(labels(&attested, &facts("/a", 0)).unwrap(), "");
    assert!(attested.report().is_empty());
}

#[test]
fn an_entry_applies_when_everything_it_names_holds() {
    let bench = Bench::new();
    let attested = bench.workloads(
        "workloads:\n\
         - {uid: 7, labels: {user: seven}}\n\
         - {cgroup: /system.slice/gw.service, labels: {app: gw}}\n\
         - {cgroup: /system.slice, uid: 8, labels: {tier: \"1\"}}\n\
         - {interface: tap7, labels: {app: vm}}\n\
         - {netns: {path: /proc/self/ns/net}, labels: {place: here}}\n",
    );
    for (cgroup, uid, expected) in [
        ("/system.slice/gw.service", 7, "app=gw,user=seven"),
        ("/system.slice/gw.service/worker", 8, "app=gw,tier=1"),
        ("/system.slice/gw.service2", 9, ""),
        ("/user.slice/system.slice/gw.service", 9, ""),
        ("/../system.slice", 8, ""),
        ("", 7, "user=seven"),
    ] {
        assert_eq!(
            labels(&attested, &facts(cgroup, uid)).unwrap(),
            expected,
            "{cgroup} {uid}"
        );
    }
    let unknown = Facts {
        place: Place::Netns(crate::netns::current().unwrap()),
        cgroup: None,
        uid: None,
    };
    assert_eq!(labels(&attested, &unknown).unwrap(), "place=here");
    let tap = Facts {
        place: Place::Interface(IfName::new("tap7").unwrap()),
        ..unknown
    };
    assert_eq!(labels(&attested, &tap).unwrap(), "app=vm");
}

#[test]
fn entries_that_contradict_each_other_are_named_both() {
    let bench = Bench::new();
    // Which of the two applies first depends on the caller: found when one comes to whom both apply.
    let attested = bench.workloads(
        "workloads:\n- {uid: 7, labels: {app: a, x: \"1\"}}\n- {cgroup: /c, labels: {app: b, x: \"1\"}}\n",
    );
    assert_eq!(labels(&attested, &facts("/d", 7)).unwrap(), "app=a,x=1");
    assert_eq!(labels(&attested, &facts("/c", 8)).unwrap(), "app=b,x=1");
    let error = labels(&attested, &facts("/c", 7)).unwrap_err().to_string();
    let path = bench.path("workloads.yaml").display().to_string();
    for part in [
        "label app",
        "\"a\"",
        "\"b\"",
        &format!("workloads[0] of {path}"),
        "workloads[1] of",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    // Where one covers the other whatever happens, the file itself is refused.
    let attested = bench.workloads(
        "workloads:\n- {cgroup: /c, labels: {app: a}}\n- {cgroup: /c/d, uid: 3, labels: {app: b}}\n",
    );
    let error = labels(&attested, &facts("/e", 9)).unwrap_err().to_string();
    assert!(
        error.contains("workloads[0]") && error.contains("workloads[1]"),
        "{error}"
    );
}

#[test]
fn a_file_that_breaks_a_rule_is_refused_with_the_rule() {
    let bench = Bench::new();
    for (text, part) in [
        ("", "missing field"),
        ("workload: []", "unknown field"),
        ("workloads: [{labels: {a: b}}]", "every workload"),
        ("workloads: [{uid: 1, labels: {a: [b]}}]", "expected a string"),
        ("workloads: [{uid: 1, labels: {a: b, a: c}}]", "given twice"),
        ("workloads: [{uid: 1, labels: {-a: b}}]", "a label key is"),
        ("workloads: [{uid: 1, labels: {a: \"b c\"}}]", "a label value has"),
        ("workloads: [{uid: 1, netns: {}, labels: {}}]", "name or path"),
        ("workloads: [{netns: {name: a/b}, labels: {}}]", "a name as in"),
        ("workloads: [{netns: {path: a}, labels: {}}]", "an absolute path"),
        (
            "workloads: [{cgroup: a/b, labels: {}}]",
            "below the cgroup2 mount",
        ),
        (
            "workloads: [{cgroup: /a/../b, labels: {}}]",
            "below the cgroup2 mount",
        ),
        (
            "workloads: [{interface: tap0, uid: 1, labels: {}}]",
            "leave them out",
        ),
        ("workloads: [{interface: \"a b\", labels: {}}]", "not valid"),
    ] {
        let attested = bench.workloads(text);
        let error = labels(&attested, &facts("/a", 1)).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {part} in {error}");
    }
}

#[test]
fn a_file_that_turns_bad_keeps_what_it_said_and_is_read_again_when_it_is_repaired() {
    let bench = Bench::new();
    let attested = bench.workloads("workloads: [{uid: 1, labels: {app: a}}]");
    let caller = facts("/", 1);
    assert_eq!(labels(&attested, &caller).unwrap(), "app=a");
    bench.put("workloads.yaml", "workloads: [{uid: 1, labels: {app: b}}]");
    assert_eq!(labels(&attested, &caller).unwrap(), "app=b");
    let path = bench.put("workloads.yaml", "workloads: nonsense");
    assert_eq!(labels(&attested, &caller).unwrap(), "app=b");
    assert!(
        attested.report()[0].error.contains("line 1"),
        "{:?}",
        attested.report()
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(labels(&attested, &caller).unwrap(), "app=b");
    assert!(
        attested.report()[0].error.contains("No such file"),
        "{:?}",
        attested.report()
    );
    // In place, and so soon that its times may not tell.
    bench.put("workloads.yaml", "workloads: [{uid: 1, labels: {app: c}}]");
    assert_eq!(labels(&attested, &caller).unwrap(), "app=c");
    fs::write(&path, "workloads: [{uid: 1, labels: {app: d}}]").unwrap();
    assert_eq!(labels(&attested, &caller).unwrap(), "app=d");
    assert_eq!(
        (attested.report()[0].entries, attested.report()[0].error.as_str()),
        (1, "")
    );
}

#[test]
fn a_file_that_others_may_write_attests_nothing() {
    let bench = Bench::new();
    let path = bench.put("workloads.yaml", "workloads: [{uid: 1, labels: {app: a}}]");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let attested = Attested::new(&[path], None);
    let error = labels(&attested, &facts("/", 1)).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
}

#[test]
fn the_uid_of_a_pod_is_that_which_the_kubelet_gave_it() {
    let slice = UID.replace('-', "_");
    for path in [
        format!("/kubepods/burstable/pod{UID}/4f2c"),
        format!("/kubepods/pod{UID}"),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-4f2c.scope"
        ),
        format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice/x"),
        // What a pod makes below its own cgroup does not count.
        format!("/kubepods/pod{UID}/podaaaaaaaa-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(pods::pod_uid(&path).as_deref(), Some(UID), "{path}");
    }
    for path in [
        "",
        "/",
        "/kubepods/burstable",
        // A user names the cgroups below its own part of the hierarchy as it likes.
        &format!("/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}"),
        &format!("/../kubepods/pod{UID}"),
        &format!("/kubepods/../pod{UID}"),
    ] {
        assert_eq!(pods::pod_uid(path), None, "{path}");
    }
}

#[test]
fn a_pod_carries_its_file_s_labels_from_its_first_call_to_its_end() {
    let bench = Bench::new();
    let attested = bench.pods();
    let inside = facts(&format!("/kubepods/burstable/pod{UID}/4f2c"), 1000);
    let outside = facts("/system.slice/x", 1000);
    assert_eq!(labels(&attested, &inside).unwrap(), "");
    let pod = format!("uid: {UID}\nnamespace: shop\nname: users-1\nlabels: {{app: users}}\n");
    let path = bench.put("users-1.yaml", &pod);
    let whole = "app=users,io.kubernetes.pod.name=users-1,io.kubernetes.pod.namespace=shop";
    assert_eq!(labels(&attested, &inside).unwrap(), whole);
    assert_eq!(labels(&attested, &outside).unwrap(), "");
    bench.put(
        "other.json",
        r#"{"cgroup": "/system.slice/x", "namespace": "shop", "name": "x"}"#,
    );
    assert_eq!(
        labels(&attested, &outside).unwrap(),
        "io.kubernetes.pod.name=x,io.kubernetes.pod.namespace=shop"
    );
    assert_eq!(attested.report()[0].entries, 2);
    fs::remove_file(path).unwrap();
    assert_eq!(labels(&attested, &inside).unwrap(), "");
}

#[test]
fn a_pod_whose_file_cannot_be_read_is_refused_and_nobody_else() {
    let bench = Bench::new();
    let attested = bench.pods();
    let inside = facts(&format!("/kubepods/pod{UID}"), 1000);
    let outside = facts("/system.slice/x", 1000);
    bench.put("bad.yaml", "uid: [");
    assert!(matches!(
        labels(&attested, &inside),
        Err(LabelsError::Unread { .. })
    ));
    assert_eq!(labels(&attested, &outside).unwrap(), "");
    let good = format!("{{uid: {UID}, namespace: shop, name: users-1}}");
    bench.put("bad.yaml", &good);
    assert!(labels(&attested, &inside).unwrap().contains("users-1"));
    bench.put("bad.yaml", "uid: [");
    assert!(labels(&attested, &inside).unwrap().contains("users-1"));
    assert!(attested.report()[0].error.contains("bad.yaml"));
}

#[test]
fn a_pod_cannot_be_labelled_as_another() {
    let bench = Bench::new();
    let attested = bench.pods();
    let inside = facts(&format!("/kubepods/pod{UID}"), 1000);
    bench.put(
        "a.yaml",
        &format!(
            "{{uid: {UID}, namespace: shop, name: a, labels: {{io.kubernetes.pod.namespace: kube-system}}}}"
        ),
    );
    assert!(labels(&attested, &inside).is_err());
    bench.put("a.yaml", &format!("{{uid: {UID}, namespace: shop, name: a}}"));
    bench.put("b.yaml", &format!("{{uid: {UID}, namespace: shop, name: b}}"));
    let error = labels(&attested, &inside).unwrap_err().to_string();
    assert!(error.contains("a.yaml") && error.contains("b.yaml"), "{error}");
    for (text, part) in [
        ("{namespace: a, name: b}", "uid, cgroup or netns"),
        ("{uid: xyz, namespace: a, name: b}", "hexadecimal"),
        ("{uid: 12345678, name: b}", "namespace"),
        ("{uid: 12345678, namespace: \"a b\", name: b}", "namespace"),
    ] {
        let fresh = Bench::new();
        fresh.put("p.yaml", text);
        let attested = fresh.pods();
        attested.look();
        assert!(
            attested.report()[0].error.contains(part),
            "{text}: {:?}",
            attested.report()
        );
    }
}
