//! Instructions by hand-written PTX: each against its definition, computed here.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod barrier;
mod float;
mod group;
mod harness;
mod integer;
mod memory;
mod tensor;
mod warp;
/// The kernels that ship use nothing that is not simulated.
#[test]
fn every_committed_kernel_is_read() {
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ptx");
    let mut n = 0;
    for family in std::fs::read_dir(images).unwrap() {
        let family = family.unwrap().path();
        if !family.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(family).unwrap() {
            let file = file.unwrap().path();
            let text = std::fs::read_to_string(&file).unwrap();
            let module = ptxsim::Module::parse(&text);
            let module = module.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            n += module.kernels().len();
        }
    }
    assert!(n > 0);
}
