//! The benchmarks' own kernel programs. They measure paths and are never part of one, except `bare_peer`, which
//! is the peer that Tieline's own program is held against.
//!
//! * `generate` (XDP, run by `BPF_PROG_TEST_RUN` with live frames) sends each frame out of one interface, as if the
//!   workload that owns it had sent it.
//! * `sink` (tcx ingress at the far end) counts frames of the generator's kind and drops them before any protocol sees them.
//! * `bare_peer` (tcx ingress at a host end) is the least that forwards by position: one hash lookup by interface,
//!   then `redirect_peer`; no counters, no checks.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        bindings::{__sk_buff, BPF_F_NO_PREALLOC, TC_ACT_OK, TC_ACT_SHOT, xdp_action},
        helpers::generated::{bpf_redirect, bpf_redirect_peer},
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
    /// Index of the interface that `generate` sends out of, in the namespace of the run.
    #[map]
    static TARGET: Array<u32> = Array::with_max_entries(1, 0);
    /// EtherType of IPv4 as `__sk_buff::protocol` holds it: network order in the low 16 bits.
    const IPV4: u32 = 0x0800_u16.to_be() as u32;

    /// Octets of a generated frame; the kernel's own chatter has other lengths.
    const FRAME_LEN: u32 = 60;

    /// Hook: none; it only ever runs in `BPF_PROG_TEST_RUN`. It redirects, because `XDP_TX` would need a receiving
    /// interface with an XDP program, and that slows the workload's side down.
    #[xdp]
    pub(crate) fn generate(_ctx: XdpContext) -> u32 {
        let Some(target) = TARGET.get(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: the helper only notes the target; the kernel checks it when the program has returned.
        #[expect(unsafe_code, reason = "helper call")]
        let code = unsafe { bpf_redirect(*target, 0) };
        return_code(code).cast_unsigned()
    }

    /// Hook: tcx ingress of the interface at the far end of a path.
    #[classifier]
    #[expect(clippy::needless_pass_by_value, reason = "the signature of a hook")]
    pub(crate) fn sink(ctx: TcContext) -> i32 {
        let skb = skb(&ctx);
        if skb.protocol != IPV4 || skb.len != FRAME_LEN {
            return TC_ACT_OK;
        }
        if let Some(count) = SUNK.get_ptr_mut(0) {
            // SAFETY: this CPU's own element, null-checked; nothing interrupts the program on this CPU at this hook.
            #[expect(unsafe_code, reason = "map values are shared memory")]
            let count = unsafe { &mut *count };
            *count = count.wrapping_add(1);
        }
        TC_ACT_SHOT
    }

    /// Hook: tcx ingress of both host ends of the peer path.
    #[classifier]
    #[expect(clippy::needless_pass_by_value, reason = "the signature of a hook")]
    pub(crate) fn bare_peer(ctx: TcContext) -> i32 {
        // SAFETY: the loader fills the map before it attaches the program and never writes it again.
        #[expect(unsafe_code, reason = "map values are shared memory")]
        let Some(peer) = (unsafe { PEERS.get(skb(&ctx).ifindex) }) else {
            return TC_ACT_SHOT;
        };
        // SAFETY: the helper only notes the target; the kernel checks it when the program has returned.
        #[expect(unsafe_code, reason = "helper call")]
        let code = unsafe { bpf_redirect_peer(*peer, 0) };
        return_code(code)
    }

    /// The packet's context.
    #[inline(always)]
    fn skb(ctx: &TcContext) -> &__sk_buff {
        // SAFETY: the kernel passes a valid context to every run; the verifier checks each access to its fields.
        #[expect(unsafe_code, reason = "the context is a kernel pointer")]
        unsafe {
            &*ctx.skb.skb
        }
    }

    /// What a helper returned, as a program returns it.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "helpers return the int of an action constant"
    )]
    const fn return_code(code: i64) -> i32 {
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
