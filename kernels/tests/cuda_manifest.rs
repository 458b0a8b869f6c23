//! The committed images are those of the committed sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kernels::cuda;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn manifest() -> Value {
    let text = fs::read_to_string(kernels().join("ptx/MANIFEST.json")).expect("a manifest");
    serde_json::from_str(&text).expect("the manifest is JSON")
}

fn digest(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).expect("a file of the manifest"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn sources_are_those_that_were_compiled() {
    let manifest = manifest();
    let mut found = BTreeMap::new();
    for dir in ["cuda", "cuda/common"] {
        for entry in fs::read_dir(kernels().join(dir)).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.strip_prefix(kernels().join("cuda")).expect("within");
                found.insert(name.to_string_lossy().into_owned(), digest(&path));
            }
        }
    }
    let expected = manifest["sources"].as_object().expect("sources");
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(name, hash)| (name.clone(), hash.as_str().expect("a hash").to_owned()))
        .collect();
    assert_eq!(found, expected, "run `cargo xtask kernels`");
}

#[test]
fn images_are_those_of_the_manifest() {
    let manifest = manifest();
    let images = manifest["images"].as_array().expect("images");
    for image in images {
        let (name, arch) = (&image["name"], &image["arch"]);
        let (name, arch) = (name.as_str().expect("name"), arch.as_str().expect("arch"));
        let path = kernels().join(format!("ptx/sm_{arch}/{name}.ptx"));
        assert_eq!(image["sha256"], digest(&path), "{}", path.display());
    }
    // Every device from 8.0 on has one image of each name, but for what 9.0 alone can do.
    let names: BTreeSet<&str> = images.iter().filter_map(|i| i["name"].as_str()).collect();
    let hopper = "linear_wgmma";
    for capability in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
        let found: Vec<&str> = cuda::images_for(capability).map(|i| i.name).collect();
        let mut unique: BTreeSet<&str> = found.iter().copied().collect();
        assert_eq!(found.len(), unique.len(), "{found:?}");
        assert_eq!(unique.contains(hopper), capability == (9, 0));
        assert_eq!(cuda::has_wgmma(capability), capability == (9, 0));
        unique.insert(hopper);
        assert_eq!(unique, names);
    }
    assert_eq!(cuda::images_for((7, 5)).count(), 0);
    let of = |capability| {
        let mut all = cuda::images_for(capability);
        all.find(|i| i.name == "attention_rows")
            .map(|i| i.capability)
    };
    assert_eq!(of((8, 6)), Some((8, 0)));
    assert_eq!(of((8, 9)), Some((8, 0)));
    assert_eq!(of((9, 0)), Some((9, 0)));
    // An image for 9.0a runs on 9.0 only.
    assert_eq!(of((12, 0)), Some((8, 0)));
}

#[test]
fn no_kernel_spills() {
    let manifest = manifest();
    for (kernel, by_arch) in manifest["figures"].as_object().expect("figures") {
        for (arch, figures) in by_arch.as_object().expect("architectures") {
            assert_eq!(figures["spills"], 0, "{kernel} on sm_{arch}");
        }
    }
}
