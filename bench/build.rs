//! Generates the client of the store that writes are compared with. protox parses the file in Rust: no
//! protoc to install.

use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/etcd_kv.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure().build_server(false).out_dir(out).compile_fds(descriptors)?;
    Ok(())
}
