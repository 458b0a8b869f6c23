//! The rules of the house, held by a test: who may know whom, where `unsafe` may live, how long
//! a file may grow, and that documents point at things that exist.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const MAX_FILE_LINES: usize = 600;

/// Which rooms each room may depend on. Tests, benches and chores may know everybody.
const ROOMS: [(&str, &[&str]); 7] = [
    ("scheduler", &[]),
    ("kernels", &[]),
    ("kernels/ptxsim", &[]),
    ("kernels/simcuda", &["ptxsim"]),
    ("models", &["kernels", "scheduler"]),
    ("benches/load", &[]),
    ("server", &["kernels", "load", "models", "scheduler"]),
];

/// Crates that belong to some rooms only.
const PRIVATE: [(&str, &[&str]); 5] = [
    ("tokio", &["server", "benches/load"]),
    ("axum", &["server"]),
    ("minijinja", &["server"]),
    ("tokenizers", &["server"]),
    ("cudarc", &["kernels"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".git", "fixtures"].contains(&name.as_str()) {
                files(&path, extension, found);
            }
        } else if name.ends_with(extension) {
            found.push(path);
        }
    }
}

fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root().join(room), ".rs", &mut found);
    found
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// What cargo knows of the workspace.
fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let told = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    serde_json::from_slice(&told.stdout).unwrap()
}

/// Dependencies (not those for tests) of each room: by its folder's path, for whatever target.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let room = manifest.parent().unwrap().strip_prefix(root()).unwrap();
        let all = package["dependencies"].as_array().unwrap().iter();
        let own = all.filter(|dependency| dependency["kind"] != "dev");
        let names = own.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        found.insert(room.to_string_lossy().into_owned(), names.collect());
    }
    for (room, _) in ROOMS {
        assert!(found.contains_key(room), "no {room}/ in the workspace");
    }
    assert!(found["server"].contains("tokio"), "{found:?}");
    found
}

#[test]
fn rooms_depend_one_way() {
    let names: Vec<&str> = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .chain(["understudy", "load", "ptxsim"])
        .collect();
    let dependencies = dependencies();
    for (room, allowed) in ROOMS {
        for dependency in &dependencies[room] {
            assert!(
                !names.contains(&dependency.as_str()) || allowed.contains(&dependency.as_str()),
                "{room} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn crates_stay_in_their_room() {
    let dependencies = dependencies();
    for (dependency, homes) in PRIVATE {
        for (room, _) in ROOMS {
            assert!(
                homes.contains(&room) || !dependencies[room].contains(dependency),
                "{dependency} belongs in {homes:?}, not in {room}"
            );
        }
    }
}

#[test]
fn unsafe_and_cuda_live_in_kernels() {
    for room in ["server", "scheduler", "models", "benches", "xtask"] {
        for (path, text) in sources(room) {
            for word in ["unsafe {", "unsafe fn", "unsafe impl", "feature = \"cuda\""] {
                assert!(
                    !text.contains(word),
                    "{}: `{word}` belongs in kernels",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_scheduler_is_deterministic() {
    for (path, text) in sources("scheduler") {
        for word in [
            "HashMap",
            "HashSet",
            "Instant::",
            "SystemTime",
            "std::thread",
            "rand::",
        ] {
            assert!(
                !text.contains(word),
                "{}: `{word}` has no place in the scheduler",
                path.display()
            );
        }
    }
}

#[test]
fn files_hold_one_idea() {
    for room in [
        "server",
        "scheduler",
        "models",
        "kernels",
        "benches",
        "tests",
        "xtask",
    ] {
        for (path, text) in sources(room) {
            let n_lines = text.lines().count();
            assert!(
                n_lines <= MAX_FILE_LINES,
                "{}: {n_lines} lines",
                path.display()
            );
        }
    }
}

#[test]
fn no_test_is_switched_off() {
    for room in [
        "server",
        "scheduler",
        "models",
        "kernels",
        "tests",
        "benches",
        "xtask",
    ] {
        for (path, text) in sources(room) {
            assert!(
                !text.contains(concat!("#[", "ignore")),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn documents_point_at_things_that_exist() {
    let mut found = Vec::new();
    files(&root(), ".md", &mut found);
    for document in found {
        let text = fs::read_to_string(&document).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{} links to {link}", document.display());
        }
    }
}

#[test]
fn every_room_is_described() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for room in dependencies().keys() {
        assert!(
            architecture.contains(&format!("`{room}/`")),
            "ARCHITECTURE.md says nothing of {room}/"
        );
    }
}
