//! The benchmarks' own kernel programs, loaded. Everything they attach goes with [`Kernel`].

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, include_bytes_aligned,
    maps::{Array, HashMap, PerCpuArray},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
        tc::SchedClassifierLinkId,
    },
};

/// Frames handed to the kernel at a time: those of one NAPI poll.
const BATCH: u32 = 64;

/// The loaded object.
pub(crate) struct Kernel {
    ebpf: Ebpf,
}

impl Kernel {
    /// Loads the generator, the sink and the bare wire.
    pub(crate) fn load() -> Result<Self> {
        static OBJECT: &[u8] = include_bytes_aligned!(env!("TIELINE_BENCH_EBPF_EMBEDDED"));
        let mut ebpf = Ebpf::load(OBJECT).context("load the benchmarks' programs: this needs CAP_BPF")?;
        for name in ["sink", "bare_peer"] {
            classifier(&mut ebpf, name)?
                .load()
                .with_context(|| format!("load {name}"))?;
        }
        let generate: &mut Xdp = ebpf
            .program_mut("generate")
            .context("no program generate")?
            .try_into()?;
        generate.load().context("load generate")?;
        Ok(Self { ebpf })
    }

    /// Makes `a` and `b`, host ends in the calling thread's namespace, the two ends of a bare wire.
    pub(crate) fn join_bare(&mut self, a: (&str, u32), b: (&str, u32)) -> Result<()> {
        let mut peers: HashMap<_, u32, u32> =
            self.ebpf.map_mut("PEERS").context("no map PEERS")?.try_into()?;
        peers.insert(a.1, b.1, 0)?;
        peers.insert(b.1, a.1, 0)?;
        let program = classifier(&mut self.ebpf, "bare_peer")?;
        for (name, _) in [a, b] {
            program
                .attach(name, TcAttachType::Ingress)
                .with_context(|| format!("attach bare_peer to {name}"))?;
        }
        Ok(())
    }

    /// Counts and drops every IPv4 frame of 60 octets that reaches `interface` of the calling thread's namespace.
    pub(crate) fn attach_sink(&mut self, interface: &str) -> Result<SchedClassifierLinkId> {
        let program = classifier(&mut self.ebpf, "sink")?;
        program
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("attach sink to {interface}"))
    }

    /// Ends what [`Kernel::attach_sink`] began.
    pub(crate) fn detach_sink(&mut self, link: SchedClassifierLinkId) -> Result<()> {
        Ok(classifier(&mut self.ebpf, "sink")?.detach(link)?)
    }

    /// Sends `count` copies of `frame` out of the interface `ifindex` of the calling thread's namespace, as fast as
    /// this processor can, doing the receiving work as it goes. Returns the mean time of one frame as the kernel
    /// measured it, without setting up and tearing down, and without the time in which another task ran.
    pub(crate) fn generate(&mut self, ifindex: u32, frame: &[u8], count: u32) -> Result<Duration> {
        let mut target: Array<_, u32> = self.ebpf.map_mut("TARGET").context("no map TARGET")?.try_into()?;
        target.set(0, ifindex, 0)?;
        let generate: &Xdp = self
            .ebpf
            .program("generate")
            .context("no program generate")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = count;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let outcome = generate
            .test_run(options)
            .context("inject live frames (Linux 5.18 on)")?;
        Ok(outcome.duration)
    }

    /// Frames that the sink has counted since it was loaded.
    pub(crate) fn sunk(&self) -> Result<u64> {
        let counts: PerCpuArray<_, u64> = self.ebpf.map("SUNK").context("no map SUNK")?.try_into()?;
        Ok(counts.get(&0, 0)?.iter().sum())
    }

    /// Waits until the sink has counted `expected` frames more than `before`; a path that loses frames would look
    /// fast.
    pub(crate) fn expect_sunk(&self, before: u64, expected: u32) -> Result<()> {
        for _ in 0..100 {
            if self.sunk()? - before == u64::from(expected) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("of {expected} injected frames {} arrived", self.sunk()? - before)
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}
