//! Tieline's kernel programs: thin hooks that turn a [`Verdict`] into a return code.
//!
//! The logic is one file per packet path (`wire.rs`, `split.rs`, `probe.rs`), map statics are in `maps.rs`, load-time constants in
//! `globals.rs`, and the only access to packet and context memory in `ctx_tc.rs`.
//!
//! [`Verdict`]: dataplane_common::Verdict
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod account;
#[cfg(target_arch = "bpf")]
mod ctx_tc;
#[cfg(target_arch = "bpf")]
mod globals;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod split;
#[cfg(target_arch = "bpf")]
mod trace;
#[cfg(target_arch = "bpf")]
mod wire;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{macros::classifier, programs::TcContext};
    use dataplane_common::Verdict;

    use crate::{ctx_tc::TcFrame, wire};

    /// Hook: ingress of a wire's interface, by a shared filter block, tcx or clsact (ADR-0003).
    #[classifier]
    pub(crate) fn wire_ingress(ctx: TcContext) -> i32 {
        let frame = TcFrame::new(ctx);
        match wire::ingress(&frame) {
            Verdict::RedirectPeer(ifindex, _) => frame.redirect_peer(ifindex),
            Verdict::RedirectEgress(ifindex, _) => frame.redirect_egress(ifindex),
            Verdict::Drop(_) => frame.drop(),
        }
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
