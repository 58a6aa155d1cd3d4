//! Compiles the protobuf definitions in Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/tidemill.proto");
    let descriptors = protox::compile(["tidemill.proto"], ["proto"])?;
    // Ordered maps: the same plan must have the same bytes, and so the same hash, in every process.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
