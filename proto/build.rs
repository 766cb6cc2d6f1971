//! Compiles the `.proto` files with a compiler written in Rust, so that `protoc` is not needed.

use std::{env, error::Error, path::Path};

const FILES: &[&str] = &[
    "nsm/networkservice.proto",
    "nsm/connection.proto",
    "nsm/connectioncontext.proto",
    "nsm/registry.proto",
    "tieline/agent/v1/agent.proto",
    "tieline/admin/v1/admin.proto",
    "tieline/admin/v1/node.proto",
    "tieline/domain/v1/domain.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["."])?;
    let encoded = prost_bytes(&descriptors);
    std::fs::write(Path::new(&env::var("OUT_DIR")?).join("descriptors.bin"), encoded)?;
    tonic_prost_build::configure()
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=nsm");
    println!("cargo::rerun-if-changed=tieline");
    Ok(())
}

fn prost_bytes(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}
