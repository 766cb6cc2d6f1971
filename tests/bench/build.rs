//! Builds the benchmarks' own kernel programs.

use std::{env, error::Error, path::Path, process::ExitCode};

/// Environment variable: path of a prebuilt object with the benchmarks' programs.
const ENV_OBJECT: &str = "TIELINE_BENCH_EBPF_OBJECT";

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
    let manifest = Path::new(&manifest);
    let workspace = manifest
        .ancestors()
        .nth(2)
        .ok_or("the crate lies two folders below the workspace")?;
    let out_dir = env::var("OUT_DIR")?;
    for watched in ["ebpf/src", "ebpf/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", manifest.join(watched).display());
    }
    for variable in [ENV_OBJECT, ebpf_toolchain::ENV_RUSTC, ebpf_toolchain::ENV_LINKER] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let program = ebpf_toolchain::Program {
        package: "tieline-bench-ebpf",
        binary: "tieline-bench-ebpf",
        features: &[],
        object_variable: ENV_OBJECT,
    };
    // A target folder of its own: the outer cargo holds the lock of the shared one.
    let object = ebpf_toolchain::build_object(workspace, &Path::new(&out_dir).join("ebpf"), program)?;
    println!(
        "cargo::rustc-env=TIELINE_BENCH_EBPF_EMBEDDED={}",
        object.display()
    );
    Ok(())
}
