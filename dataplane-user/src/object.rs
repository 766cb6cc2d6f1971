//! The kernel programs that this build carries.

/// The compiled object (ELF, with BTF). Its programs and maps are named in [`dataplane_common::names`].
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TIELINE_EBPF_EMBEDDED"));
