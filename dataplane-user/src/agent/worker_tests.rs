use std::{path::Path, sync::mpsc as std_mpsc, time::Instant};

use super::*;
use crate::{
    agent::{
        convert,
        testing::{self, delta, lost_wire, machine, snapshot, wire, wire_counts},
    },
    fake::Fake,
};

/// A worker without its thread, so that a test can look at the machine and change it.
struct Bench {
    worker: Worker<Fake>,
    jobs: mpsc::Sender<Job>,
    reports: Reports,
    answers: mpsc::Receiver<Report>,
}

impl Bench {
    fn new(max_wires: u32) -> Self {
        let status = Arc::new(Status::new("tl-node"));
        let (fake, ..) = machine(max_wires);
        let reconciler = start(fake, &status).unwrap();
        let (jobs, receiver) = mpsc::channel(MAX_JOBS);
        let worker = Worker {
            resolvers: Resolvers::new(Path::new("/proc/tl-none"), reconciler.datapath().scope()),
            reconciler,
            jobs: receiver,
            held: None,
            lost: Vec::new(),
            status,
            at: None,
            session: None,
            changed: None,
            looked_at_drains: Instant::now(),
            round: None,
        };
        let (reports, answers, _) = Reports::new(64);
        Self {
            worker,
            jobs,
            reports,
            answers,
        }
    }

    fn dump(&self) -> String {
        self.worker.reconciler.datapath().dump()
    }

    fn snapshot(&mut self, generation: u64, wires: Vec<proto::Wire>) {
        self.worker.snapshot(
            convert::snapshot(snapshot(generation, wires)),
            self.reports.clone(),
        );
    }

    fn repair(&mut self) {
        let pass = self.worker.repair(|reconciler| reconciler.pass(Instant::now()));
        pass.expect("the kernel can be read");
    }

    fn delta(&mut self, delta: proto::Delta) {
        self.worker.delta(convert::delta(delta), &self.reports);
    }

    fn answer(&mut self) -> Report {
        self.answers.try_recv().expect("an answer")
    }

    fn ack(&mut self) -> (u64, Vec<String>) {
        match self.answer() {
            Report::Ack(ack) => (
                ack.generation,
                ack.failures.into_iter().map(|f| f.connection_id).collect(),
            ),
            other => panic!("an acknowledgement was due, not {other:?}"),
        }
    }
}

#[test]
fn nothing_is_touched_before_the_first_snapshot() {
    let mut bench = Bench::new(8);
    let before = bench.dump();
    bench.repair();
    bench.delta(delta(0, vec![wire(1)], &[]));
    assert_eq!(bench.dump(), before);
    assert_eq!(
        bench.answer(),
        Report::Fault(Fault::OutOfStep {
            parent: 0,
            generation: 1,
            ours: 0
        })
    );
}

#[test]
fn what_an_earlier_agent_left_forwards_until_the_snapshot_says_otherwise() {
    let mut first = Bench::new(8);
    first.snapshot(3, vec![wire(1), wire(2)]);
    let left = first.dump();

    let status = Arc::new(Status::new("tl-node"));
    let reconciler = start(first.worker.reconciler.into_datapath(), &status).unwrap();
    let mut second = Bench::new(8);
    (second.worker.reconciler, second.worker.status) = (reconciler, status);
    assert_eq!(second.worker.status.applied(), 3);
    second.repair();
    assert_eq!(second.dump(), left);

    second.snapshot(3, vec![wire(1), wire(2)]);
    assert_eq!(second.ack(), (3, vec![]));
    assert_eq!(second.dump(), left, "the same plan changes nothing");
    second.snapshot(4, vec![]);
    assert!(!second.dump().contains("nsm-1"), "{}", second.dump());
}

#[test]
fn an_older_plan_than_the_kernels_is_refused() {
    let mut bench = Bench::new(8);
    bench.snapshot(5, vec![wire(1)]);
    assert_eq!(bench.ack(), (5, vec![]));
    let before = bench.dump();
    bench.snapshot(4, vec![]);
    assert!(matches!(bench.answer(), Report::Fault(Fault::Pass(_))));
    assert_eq!(bench.dump(), before);
}

#[test]
fn a_change_of_another_generation_asks_for_a_new_session() {
    let mut bench = Bench::new(8);
    bench.snapshot(5, vec![]);
    bench.ack();
    bench.delta(delta(6, vec![wire(1)], &[]));
    assert_eq!(
        bench.answer(),
        Report::Fault(Fault::OutOfStep {
            parent: 6,
            generation: 7,
            ours: 5
        })
    );
    bench.delta(proto::Delta {
        generation: 5,
        parent: 5,
        ..proto::Delta::default()
    });
    assert_eq!(
        bench.answer(),
        Report::Fault(Fault::OutOfStep {
            parent: 5,
            generation: 5,
            ours: 5
        })
    );
    bench.delta(delta(5, vec![wire(1)], &[]));
    assert_eq!(bench.ack(), (6, vec![]), "the right one still goes");
}

#[test]
fn a_wire_that_cannot_be_made_is_reported_and_the_others_forward() {
    let mut bench = Bench::new(8);
    let mut invalid = wire(3);
    invalid.mtu = 7;
    bench.snapshot(1, vec![wire(1), lost_wire(2), invalid]);
    let Report::Ack(ack) = bench.answer() else {
        panic!("an acknowledgement")
    };
    let found: Vec<_> = ack
        .failures
        .iter()
        .map(|f| (f.connection_id.as_str(), f.kind()))
        .collect();
    assert_eq!(
        found,
        [
            ("c2", proto::FailureKind::NetnsGone),
            ("c3", proto::FailureKind::Invalid)
        ]
    );
    assert_eq!(bench.worker.status.wire_counts(), wire_counts(1, 1));
    let views = bench.worker.reconciler.wires(None).unwrap();
    assert_eq!(
        views.iter().map(|view| view.forwarding).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn a_wire_that_goes_and_comes_back_by_itself_is_observed() {
    let mut bench = Bench::new(8);
    bench.snapshot(1, vec![wire(1), wire(2)]);
    bench.ack();
    bench
        .worker
        .reconciler
        .datapath_mut()
        .remove_netns(Path::new("/run/netns/tl-client"));
    bench.repair();
    for id in ["c1", "c2"] {
        let Report::Observation(seen) = bench.answer() else {
            panic!("an observation")
        };
        assert_eq!(
            (seen.connection_id.as_str(), seen.kind()),
            (id, proto::ObservationKind::WireLost)
        );
        assert!(seen.message.contains("/run/netns/tl-client"), "{}", seen.message);
    }
    bench.repair();
    assert!(bench.answers.try_recv().is_err(), "it is said once");
    bench
        .worker
        .reconciler
        .datapath_mut()
        .add_netns("/run/netns/tl-client", 101);
    bench.repair();
    let Report::Observation(seen) = bench.answer() else {
        panic!("an observation")
    };
    assert_eq!(
        (seen.connection_id.as_str(), seen.kind()),
        ("c1", proto::ObservationKind::WireRestored)
    );
}

#[test]
fn deltas_that_wait_become_one_change_and_each_is_answered() {
    let mut bench = Bench::new(64);
    bench.snapshot(0, vec![]);
    bench.ack();
    let wires = [wire(1), lost_wire(2), wire(3), wire(4)];
    for (parent, wire) in (1..).zip(&wires[1..]) {
        let delta = convert::delta(delta(parent, vec![wire.clone()], &[]));
        bench
            .jobs
            .try_send(Job::Delta {
                delta,
                reports: bench.reports.clone(),
            })
            .unwrap();
    }
    bench.delta(delta(0, vec![wires[0].clone()], &[]));
    let acks: Vec<_> = (0..4).map(|_| bench.ack()).collect();
    assert_eq!(
        acks,
        [(1, vec![]), (2, vec!["c2".to_owned()]), (3, vec![]), (4, vec![])]
    );
    assert_eq!(bench.worker.reconciler.generation(), 4);
    assert_eq!(bench.worker.status.metrics.deltas.get(), 4);
    let passes = testing::metric(
        &bench.worker.status,
        "tieline_reconcile_pass_seconds_count{kind=\"delta\"}",
    );
    assert_eq!(passes, "1", "one pass for all of them");
}

#[test]
fn another_sessions_deltas_are_not_mixed_in() {
    let mut bench = Bench::new(8);
    bench.snapshot(0, vec![]);
    bench.ack();
    let (other, mut others_answers, _) = Reports::new(64);
    let next = convert::delta(delta(1, vec![wire(2)], &[]));
    bench
        .jobs
        .try_send(Job::Delta {
            delta: next,
            reports: other,
        })
        .unwrap();
    bench.delta(delta(0, vec![wire(1)], &[]));
    assert_eq!(bench.ack(), (1, vec![]));
    assert!(others_answers.try_recv().is_err());
    assert!(bench.worker.held.is_some(), "it waits for its own turn");
}

/// The wire number 1 with its endpoint in a third namespace.
fn moved() -> proto::Wire {
    let mut moved = wire(1);
    let endpoint = moved.branches[0]
        .circuit
        .as_mut()
        .unwrap()
        .endpoint
        .as_mut()
        .unwrap();
    if let Some(proto::wire_end::Attachment::Veth(end)) = endpoint.attachment.as_mut() {
        let netns = end.netns.as_mut().unwrap();
        (netns.path, netns.inode) = ("/run/netns/tl-other".into(), 103);
    }
    moved
}

#[tokio::test]
async fn what_lingers_goes_in_time_although_nobody_asks() {
    let mut bench = Bench::new(8);
    bench
        .worker
        .reconciler
        .datapath_mut()
        .add_netns("/run/netns/tl-other", 103);
    bench.snapshot(1, vec![wire(1)]);
    assert_eq!(bench.ack(), (1, vec![]));
    bench.delta(delta(1, vec![moved()], &[]));
    assert_eq!(bench.ack(), (2, vec![]));
    let links = |bench: &Bench| bench.dump().matches("\nlink ").count();
    assert_eq!(links(&bench), 3);
    let runtime = Handle::current();
    let began = Instant::now();
    let next = tokio::task::spawn_blocking(move || {
        let job = bench.worker.next(&runtime);
        (bench, job)
    });
    let (mut bench, job) = testing::soon(next).await.unwrap();
    assert!(matches!(job, Some(Job::EndLingering)));
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
    bench.worker.end_lingering();
    assert_eq!(links(&bench), 2);
}

#[tokio::test]
async fn the_thread_does_what_it_has_accepted_and_ends() {
    let status = Arc::new(Status::new("tl-node"));
    let (fake, ..) = machine(8);
    let Running {
        jobs,
        started,
        ended,
        thread,
    } = spawn(
        |_| Ok((fake, ())),
        Path::new("/proc/tl-none"),
        Arc::clone(&status),
    )
    .unwrap();
    testing::soon(started).await.unwrap().unwrap();
    let (release, wait) = std_mpsc::channel::<()>();
    jobs.send(Job::Look(Box::new(move |_| wait.recv().unwrap())))
        .await
        .unwrap();
    let (reports, mut answers, _) = Reports::new(64);
    let plan = convert::snapshot(snapshot(1, vec![wire(1)]));
    jobs.send(Job::Snapshot { plan, reports }).await.unwrap();
    drop(jobs);
    release.send(()).unwrap();
    testing::soon(ended).await.unwrap();
    thread.join().unwrap();
    assert!(matches!(answers.recv().await, Some(Report::Ack(ack)) if ack.generation == 1));
    assert_eq!(status.applied(), 1);
}

#[tokio::test]
async fn a_datapath_that_does_not_start_says_why() {
    let status = Arc::new(Status::new("tl-node"));
    let Running { started, ended, .. } =
        spawn::<Fake, (), _>(|_| Err("no bpffs".into()), Path::new("/proc/tl-none"), status).unwrap();
    assert_eq!(
        testing::soon(started).await.unwrap().unwrap_err().to_string(),
        "no bpffs"
    );
    testing::soon(ended).await.unwrap();
}

#[test]
fn wires_of_lost_interfaces_are_observed_and_others_are_left_alone() {
    let mut bench = Bench::new(8);
    bench.snapshot(1, vec![wire(1), wire(2)]);
    bench.ack();
    let view = bench.worker.reconciler.wires(None).unwrap().remove(0);
    let index = view.client.ifindex.unwrap();
    bench
        .worker
        .reconciler
        .datapath_mut()
        .remove_netns(Path::new("/run/netns/tl-client"));
    bench
        .worker
        .repair(|reconciler| reconciler.interfaces_lost(&[9_999], Instant::now()))
        .unwrap();
    assert!(bench.answers.try_recv().is_err(), "not one of ours");
    bench
        .worker
        .repair(|reconciler| reconciler.interfaces_lost(&[index], Instant::now()))
        .unwrap();
    let Report::Observation(seen) = bench.answer() else {
        panic!("an observation")
    };
    assert_eq!(
        (seen.connection_id.as_str(), seen.kind()),
        ("c1", proto::ObservationKind::WireLost)
    );
    assert!(
        bench.answers.try_recv().is_err(),
        "only the wire of that interface was looked at"
    );
}

#[test]
fn notices_between_changes_do_not_make_two_passes_of_them() {
    let mut bench = Bench::new(8);
    bench.snapshot(1, vec![wire(1), wire(2), wire(3)]);
    bench.ack();
    let queued = |delta| Job::Delta {
        delta: convert::delta(delta),
        reports: bench.reports.clone(),
    };
    let (notice, second) = (
        Job::InterfacesLost(vec![901, 902]),
        queued(delta(2, vec![], &["wire-2"])),
    );
    let (looked, look) = std_mpsc::channel();
    let look_at = Job::Look(Box::new(move |view| {
        let wires = view.wires(None).map_or(0, |wires| wires.len());
        looked.send(wires).unwrap();
    }));
    for job in [notice, Job::Promote, look_at, second] {
        bench.jobs.try_send(job).unwrap();
    }
    bench.delta(delta(1, vec![], &["wire-1"]));
    assert_eq!((bench.ack().0, bench.ack().0), (2, 3), "both in one pass");
    assert_eq!(
        look.try_recv(),
        Ok(3),
        "what a look sees is what there was when it was asked for"
    );
    assert_eq!(bench.worker.reconciler.generation(), 3);
    assert!(bench.worker.lost.is_empty(), "no wire has these interfaces");
}

#[test]
fn a_wire_whose_name_servers_cannot_be_used_stands_and_says_so() {
    let mut bench = Bench::new(256);
    let mut resolved = wire(1);
    let end = resolved.client.as_mut().and_then(|end| end.attachment.as_mut());
    let Some(proto::wire_end::Attachment::Veth(end)) = end else {
        panic!("a veth")
    };
    // The folder of this worker's resolver files cannot be made.
    end.name_servers = vec![proto::NameServers {
        addresses: vec!["10.0.0.53".into()],
        search_domains: Vec::new(),
    }];
    bench.snapshot(1, vec![resolved, wire(2)]);
    let Report::Ack(ack) = bench.answer() else {
        panic!("an acknowledgement")
    };
    assert_eq!(ack.generation, 1);
    let [failure] = ack.failures.as_slice() else {
        panic!("one failure: {ack:?}")
    };
    assert_eq!(failure.connection_id, "c1");
    assert_eq!(failure.field, "context.extra_context[tieline.io/dns]");
    assert_eq!(bench.worker.reconciler.wire_counts(), wire_counts(2, 0));
}

#[test]
fn while_everything_is_compared_other_jobs_go_first_and_the_parts_do_not_wait_forever() {
    let mut bench = Bench::new(8);
    bench.snapshot(1, vec![wire(1), wire(2)]);
    bench.ack();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let next = |bench: &mut Bench| bench.worker.next(runtime.handle()).expect("a job");
    bench.worker.work(Job::Repair);
    bench.jobs.try_send(Job::Promote).unwrap();
    assert!(matches!(next(&mut bench), Job::Promote), "what waits goes first");
    assert!(matches!(next(&mut bench), Job::GoOn));
    bench.worker.work(Job::GoOn);
    let round = bench
        .worker
        .round
        .as_mut()
        .expect("strays were not looked for yet");
    round.last -= PATIENCE;
    bench.jobs.try_send(Job::Promote).unwrap();
    assert!(
        matches!(next(&mut bench), Job::GoOn),
        "a part has waited long enough"
    );
    bench.worker.work(Job::GoOn);
    assert!(bench.worker.round.is_none(), "everything was compared");
    assert!(matches!(next(&mut bench), Job::Promote));
}
