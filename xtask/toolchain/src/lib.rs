//! Finds a compiler for the kernel programs and builds them.
//!
//! Used by `dataplane-user/build.rs`, so that plain `cargo build` works, and by `xtask`, which also installs what
//! is missing. Three ways, in this order (see `docs/adr/0002-ebpf-toolchain.md`):
//!
//! 1. a prebuilt object named by [`ENV_OBJECT`];
//! 2. a `rustc` that ships a precompiled `core` for the BPF target, such as Debian's `rustc-web`;
//! 3. `rustup`'s nightly with `rust-src`, which builds `core` itself.
//!
//! The second and third link with `bpf-linker`, looked for in [`ENV_LINKER`], the cache and `PATH`.
#![forbid(unsafe_code)]

mod build;
mod find;

pub use build::{BuildError, Lint, Program, build_object, lint_object};
pub use find::{
    Compiler, MissingToolchain, Toolchain, cache_dir, compiler, find, find_for, has_bpf_core, linker,
    linker_in_cache,
};

/// Environment variable: path of a prebuilt object; nothing is compiled then.
pub const ENV_OBJECT: &str = "TIELINE_EBPF_OBJECT";
/// Environment variable: a `rustc` to try before the others.
pub const ENV_RUSTC: &str = "TIELINE_EBPF_RUSTC";
/// Environment variable: path of `bpf-linker`.
pub const ENV_LINKER: &str = "TIELINE_BPF_LINKER";
/// Environment variable: folder for what `xtask setup` builds. Default: `tieline` in the user's cache folder.
pub const ENV_CACHE: &str = "TIELINE_CACHE";

/// The BPF target: little-endian, as every supported host is.
pub const TARGET: &str = "bpfel-unknown-none";
/// The pinned linker release; part of its folder's name in the cache.
pub const LINKER_VERSION: &str = "0.13.0";
/// LLVM release the pinned linker is built against: that of Debian's `rustc-web`.
pub const LLVM_MAJOR: u32 = 22;
