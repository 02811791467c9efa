//! Generates the gRPC code. protox parses the files in Rust: no protoc to install.

use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["admin", "audit", "governance", "gpu", "guard", "models", "node", "packages", "sibling"]
        .map(|name| format!("proto/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .bytes(".provost.node.v1")
        .bytes(".provost.audit.v1")
        .bytes(".provost.packages.v1")
        .bytes(".provost.sibling.v1")
        .codec_path("crate::codec::SmallCodec")
        .bytes(".provost.gpu.v1")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}
