//! Compiles the `.proto` files with protox, so that no `protoc` is needed on the machine.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["model_serving.proto", "grpc_service.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    // Server reflection and the text format of config.pbtxt read the same descriptors.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `Bytes` instead of `Vec<u8>`: a tensor is then a view of the message it came in, not a copy of it.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
