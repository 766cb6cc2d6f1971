//! The classifier's context: the only file that reads `__sk_buff` and packet memory.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::generated::{bpf_redirect, bpf_redirect_peer, bpf_skb_load_bytes},
    programs::TcContext,
};
use dataplane_common::{
    abi::EVENT_SNAPSHOT_LEN,
    flow::{Family, Octets},
};

/// EtherTypes as they stand in `__sk_buff::protocol`: network order in the low 16 bits.
mod protocol {
    use network_types::eth::EtherType;
    pub(super) const IPV4: u32 = EtherType::Ipv4 as u32;
    pub(super) const IPV6: u32 = EtherType::Ipv6 as u32;
    pub(super) const ARP: u32 = EtherType::Arp as u32;
}

/// One frame at a classifier hook.
pub(crate) struct TcFrame {
    ctx: TcContext,
}

impl TcFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        Self { ctx }
    }

    /// The same frame, in a function that is not inlined: the verifier knows the context when it is passed as it is.
    #[inline(always)]
    pub(crate) fn again(ctx: *mut __sk_buff) -> Self {
        Self::new(TcContext::new(ctx))
    }

    /// What [`Self::again`] takes.
    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// The context, for the logger.
    #[cfg(feature = "trace")]
    #[inline(always)]
    pub(crate) fn context(&self) -> &TcContext {
        &self.ctx
    }

    #[inline(always)]
    fn skb(&self) -> &__sk_buff {
        // SAFETY: the kernel passes a valid context for the whole run; the verifier rewrites each field access and
        // refuses those that are not allowed.
        #[expect(unsafe_code, reason = "the context is a kernel pointer")]
        unsafe {
            &*self.ctx.skb.skb
        }
    }

    /// Index of the interface whose hook this is.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.skb().ifindex
    }

    /// Octets from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.skb().len
    }

    /// Whether the frame carries a VLAN tag. The kernel has moved the outer tag out of the frame by now.
    #[inline(always)]
    pub(crate) fn has_vlan_tag(&self) -> bool {
        self.skb().vlan_present != 0
    }

    /// Whether the frame is IPv4, IPv6 or the ARP that IPv4 needs.
    #[inline(always)]
    pub(crate) fn is_ip_or_arp(&self) -> bool {
        matches!(
            self.skb().protocol,
            protocol::IPV4 | protocol::IPV6 | protocol::ARP
        )
    }

    /// The network protocol, if it is IP and directly behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn family(&self) -> Option<Family> {
        match self.skb().protocol {
            _ if self.has_vlan_tag() => None,
            protocol::IPV4 => Some(Family::V4),
            protocol::IPV6 => Some(Family::V6),
            _ => None,
        }
    }

    /// The octets at `at`, as many as a `T` has, which must be made of octets alone.
    #[inline(always)]
    fn load<T>(&self, at: u32) -> Option<T> {
        let mut octets = MaybeUninit::<T>::uninit();
        #[expect(unsafe_code, clippy::cast_possible_truncation, reason = "helper call")]
        // SAFETY: the destination has room for that many octets, which the verifier checks again.
        let done = unsafe {
            bpf_skb_load_bytes(
                self.ctx.as_ptr(),
                at,
                octets.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: the helper has written all of it if it says so, and any octets are a valid `T`.
        #[expect(unsafe_code, reason = "filled by a helper")]
        (done == 0).then(|| unsafe { octets.assume_init() })
    }

    /// Copies the beginning of the frame; returns how many octets.
    #[inline(always)]
    pub(crate) fn snapshot(&self, into: *mut [u8; EVENT_SNAPSHOT_LEN]) -> u32 {
        const LAST: u64 = EVENT_SNAPSHOT_LEN as u64 - 1;
        // The helper refuses zero octets, and verifiers before Linux 6.8 learn nothing from `!= 0`: so the number of
        // octets is one more than an index that is bounded from above only. The volatile access keeps the compiler
        // from seeing through that. Of an empty frame (there is none) the helper would copy nothing.
        let last = u64::from(self.len()).wrapping_sub(1);
        let bounded = if last < LAST { last } else { LAST };
        #[expect(
            unsafe_code,
            clippy::cast_possible_truncation,
            reason = "a volatile read of at most `LAST`"
        )]
        // SAFETY: reads a local variable.
        let len = unsafe { (&raw const bounded).read_volatile() } as u32 + 1;
        // SAFETY: `into` is a whole snapshot in the ring buffer and `len` is at most its size, which the verifier
        // checks again.
        #[expect(unsafe_code, reason = "helper call")]
        let done = unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), 0, into.cast(), len) };
        if done == 0 { len } else { 0 }
    }

    /// The return code that hands the frame to the namespace behind the host end `ifindex`.
    #[inline(always)]
    pub(crate) fn redirect_peer(self, ifindex: u32) -> i32 {
        // SAFETY: the helper only notes the target; the kernel checks it when the program has returned.
        #[expect(unsafe_code, reason = "helper call")]
        let code = unsafe { bpf_redirect_peer(ifindex, 0) };
        return_code(code)
    }

    /// The return code that sends the frame out of `ifindex`.
    #[inline(always)]
    pub(crate) fn redirect_egress(self, ifindex: u32) -> i32 {
        // SAFETY: as in `redirect_peer`.
        #[expect(unsafe_code, reason = "helper call")]
        let code = unsafe { bpf_redirect(ifindex, 0) };
        return_code(code)
    }

    /// The return code that drops the frame.
    #[inline(always)]
    pub(crate) fn drop(self) -> i32 {
        TC_ACT_SHOT
    }
}

impl Octets for TcFrame {
    #[inline(always)]
    fn octets<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        // Aligned, so that words are read as words; and without padding, for the compiler would read that as well, and
        // verifiers before Linux 6.3 refuse to read what was not written.
        #[repr(align(8))]
        struct Long<const N: usize>([u8; N]);
        #[repr(align(4))]
        struct Short<const N: usize>([u8; N]);
        const {
            assert!(N.is_multiple_of(4), "whole words");
            assert!(N <= 64, "the stack is small");
        }
        if N.is_multiple_of(8) {
            self.load::<Long<N>>(at).map(|long| long.0)
        } else {
            self.load::<Short<N>>(at).map(|short| short.0)
        }
    }
}

/// What a helper returned, as a program returns it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "helpers return the int of a TC_ACT constant"
)]
const fn return_code(code: i64) -> i32 {
    code as i32
}
