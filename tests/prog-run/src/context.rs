//! The part of `struct __sk_buff` that `BPF_PROG_TEST_RUN` takes from the caller.

/// Octets of `struct __sk_buff` up to and including `ifindex`; the kernel takes the rest as zero.
const LEN: usize = 44;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// A context in which the frame came in at interface `ifindex`.
pub(crate) fn at_interface(ifindex: u32) -> [u8; LEN] {
    let mut context = [0; LEN];
    for at in [INGRESS_IFINDEX, IFINDEX] {
        context[at..at + 4].copy_from_slice(&ifindex.to_ne_bytes());
    }
    context
}
