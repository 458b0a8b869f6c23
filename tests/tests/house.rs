//! The rules of the house, held by a test: who may know whom, where `unsafe` may live, how long
//! a file may grow, and that documents point at things that exist.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 600;

/// Which rooms each room may depend on. Tests, benches and chores may know everybody.
const ROOMS: [(&str, &[&str]); 4] = [
    ("scheduler", &[]),
    ("kernels", &[]),
    ("models", &["kernels", "scheduler"]),
    ("server", &["kernels", "models", "scheduler"]),
];

/// Crates that belong to one room only.
const PRIVATE: [(&str, &str); 5] = [
    ("tokio", "server"),
    ("axum", "server"),
    ("minijinja", "server"),
    ("tokenizers", "server"),
    ("cudarc", "kernels"),
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

/// Names under `[dependencies]` (not those for tests) of a room.
fn dependencies(room: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]").nth(1).unwrap_or("");
    section
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn rooms_depend_one_way() {
    let names: Vec<&str> = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .chain(["understudy"])
        .collect();
    for (room, allowed) in ROOMS {
        for dependency in dependencies(room) {
            assert!(
                !names.contains(&dependency.as_str()) || allowed.contains(&dependency.as_str()),
                "{room} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn crates_stay_in_their_room() {
    for (dependency, home) in PRIVATE {
        for (room, _) in ROOMS {
            assert!(
                room == home || !dependencies(room).contains(dependency),
                "{dependency} belongs in {home}, not in {room}"
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
    for room in ["server", "scheduler", "models", "kernels", "tests"] {
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
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest
        .split("members = [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap();
    for room in members.split(',').map(|name| name.trim().trim_matches('"')) {
        assert!(
            architecture.contains(&format!("`{room}/`")),
            "ARCHITECTURE.md says nothing of {room}/"
        );
    }
}
