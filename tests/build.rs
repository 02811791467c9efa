//! Generates the gRPC service of the example. protox parses the files in Rust: no protoc to install.

use std::{error::Error, path::PathBuf};

use prost::Message;

const DIR: &str = "../examples/plugins/grpc";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIR}/tickets.proto");
    println!("cargo:rerun-if-changed={DIR}/ticket.proto");
    let descriptors = protox::compile(["tickets.proto"], [DIR])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tickets.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_client(false).out_dir(out).compile_fds(descriptors)?;
    Ok(())
}
