//! Builds the kernel programs, so that the agent can carry them inside.

use std::{env, error::Error, path::Path, process::ExitCode};

fn main() -> ExitCode {
    match embed_object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed_object() -> Result<(), Box<dyn Error>> {
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest)
        .parent()
        .ok_or("the crate lies in the workspace")?;
    let out_dir = env::var("OUT_DIR")?;
    for watched in [
        "dataplane-common/src",
        "dataplane-common/Cargo.toml",
        "dataplane-ebpf/src",
        "dataplane-ebpf/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    for variable in [
        ebpf_toolchain::ENV_OBJECT,
        ebpf_toolchain::ENV_RUSTC,
        ebpf_toolchain::ENV_LINKER,
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let features: &[&str] = if env::var_os("CARGO_FEATURE_TRACE").is_some() {
        &["trace"]
    } else {
        &[]
    };
    // A target folder of its own: the outer cargo holds the lock of the shared one.
    let object = ebpf_toolchain::build_object(
        workspace,
        &Path::new(&out_dir).join("ebpf"),
        ebpf_toolchain::Program::dataplane(features),
    )?;
    println!("cargo::rustc-env=TIELINE_EBPF_EMBEDDED={}", object.display());
    Ok(())
}
