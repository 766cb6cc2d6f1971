//! Constants that the agent sets before loading. The verifier sees their values and removes code that is off.

use aya_ebpf::Global;

/// Send an event for every drop and for each n-th forwarded frame; 0: none.
///
/// It lies in a section of its own: LLVM merges equal anonymous constants of `.rodata` with a static that the
/// loader overrides, and then changes both.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.cfg")]
#[expect(unsafe_code, reason = "the loader finds the constant by name and section")]
static TL_EVENT_SAMPLE: Global<u32> = Global::new(0);

/// What the data of the node's probes begins with, in memory order; 0: the node does not probe. In a section of its own,
/// like the constant above.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.probe")]
#[expect(unsafe_code, reason = "the loader finds the constant by name and section")]
static TL_PROBE_COOKIE: Global<u64> = Global::new(0);

/// See [`TL_EVENT_SAMPLE`].
#[inline(always)]
pub(crate) fn event_sample() -> u32 {
    TL_EVENT_SAMPLE.load()
}

/// See [`TL_PROBE_COOKIE`].
#[inline(always)]
pub(crate) fn probe_cookie() -> u64 {
    TL_PROBE_COOKIE.load()
}
