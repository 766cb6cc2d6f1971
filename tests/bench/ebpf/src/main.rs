//! The benchmarks' own kernel programs. They measure paths and are never part of one, except `bare_peer`, which
//! is the peer that Tieline's own program is held against.
//!
//! * `generate` (XDP, run by `BPF_PROG_TEST_RUN` with live frames) sends each frame out of the interface that the
//!   run names as its ingress, as if the workload behind it had sent it.
//! * `sink` (tcx ingress at the far end) counts the generator's frames and drops them before any protocol sees them.
//! * `bare_peer` (tcx ingress at a host end) is the least that forwards by position: one hash lookup by interface,
//!   then `redirect_peer`; no counters, no checks.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        bindings::{BPF_F_NO_PREALLOC, TC_ACT_OK, TC_ACT_SHOT, xdp_action},
        helpers::generated::bpf_redirect_peer,
        macros::{classifier, map, xdp},
        maps::{Array, HashMap, PerCpuArray},
        programs::{TcContext, XdpContext},
    };

    /// Interface index of a host end → index of the other host end.
    #[map]
    static PEERS: HashMap<u32, u32> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
    /// Frames that `sink` has seen on this CPU.
    #[map]
    static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
    /// The EtherType that `sink` counts, in network order; everything else passes.
    #[map]
    static SINK_PROTOCOL: Array<u32> = Array::with_max_entries(1, 0);

    /// Hook: none; it only ever runs in `BPF_PROG_TEST_RUN`.
    #[xdp]
    pub fn generate(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    /// Hook: tcx ingress of the interface at the far end of a path.
    #[classifier]
    pub fn sink(ctx: TcContext) -> i32 {
        // SAFETY: the kernel passes a valid context; the verifier checks the field access.
        #[expect(unsafe_code, clippy::multiple_unsafe_ops_per_block, reason = "the context is a kernel pointer")]
        let protocol = unsafe { (*ctx.skb.skb).protocol };
        if SINK_PROTOCOL.get(0) != Some(&protocol) {
            return TC_ACT_OK;
        }
        if let Some(count) = SUNK.get_ptr_mut(0) {
            // SAFETY: this CPU's own element, null-checked; nothing interrupts the program on this CPU at this hook.
            #[expect(unsafe_code, clippy::multiple_unsafe_ops_per_block, reason = "map values are shared memory")]
            unsafe {
                *count = (*count).wrapping_add(1);
            }
        }
        TC_ACT_SHOT
    }

    /// Hook: tcx ingress of both host ends of the peer path.
    #[classifier]
    pub fn bare_peer(ctx: TcContext) -> i32 {
        // SAFETY: as in `sink`.
        #[expect(unsafe_code, clippy::multiple_unsafe_ops_per_block, reason = "the context is a kernel pointer")]
        let ifindex = unsafe { (*ctx.skb.skb).ifindex };
        // SAFETY: the loader fills the map before it attaches the program and never writes it again.
        #[expect(unsafe_code, reason = "map values are shared memory")]
        let Some(peer) = (unsafe { PEERS.get(&ifindex) }) else {
            return TC_ACT_SHOT;
        };
        // SAFETY: the helper only notes the target; the kernel checks it when the program has returned.
        #[expect(unsafe_code, reason = "helper call")]
        let code = unsafe { bpf_redirect_peer(*peer, 0) };
        code as i32
    }

    /// A reachable panic would be an endless loop, which the verifier refuses to load: so there is none.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The helpers called here are open to GPL-compatible programs only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    #[expect(unsafe_code, reason = "the kernel looks the licence up by section")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// The crate is a workspace member, so that editors and `cargo check` see it; on the host it does nothing.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
