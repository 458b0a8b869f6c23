//! Directories and files: whether they are there, and who may read and write them.

use std::path::Path;

use super::Finding;
use crate::settings::Settings;

/// Looks at whatever the settings name.
pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(dir) = &settings.store.dir {
        findings.push(store(dir));
    }
    let adapters = &settings.adapters;
    for (name, path) in &adapters.named {
        if !path.exists() {
            let text = format!("--adapter {name}: {} is not there", path.display());
            findings.push(Finding::bad("adapter", text));
        }
    }
    for (flag, dir) in [
        ("--adapter-dir", &adapters.dir),
        ("--adapter-root", &adapters.root),
    ] {
        if let Some(dir) = dir.as_ref().filter(|dir| std::fs::read_dir(dir).is_ok()) {
            let text = format!("{flag} {} can be read", dir.display());
            findings.push(Finding::good("adapters", text));
        }
    }
    let faults = adapters.faults().into_iter();
    findings.extend(faults.map(|fault| Finding::bad("adapters", fault.to_string())));
    if let Some(tls) = &settings.connections.tls {
        findings.push(secret("tls key", tls.files()[1]));
    }
    if let Some(file) = settings.app.keys.file() {
        findings.push(secret("key file", file));
    }
    findings
}

/// A directory that is not there yet is made at the start, so its first parent that is there counts.
fn store(dir: &Path) -> Finding {
    let there = dir.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("."));
    let probe = there.join(".understudy-doctor");
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => Finding::good("store", format!("{} can be written", dir.display())),
        Err(error) => Finding::bad(
            "store",
            format!(
                "--store-dir {}: {} cannot be written: {error}; give the directory to the user \
                 that the server runs as",
                dir.display(),
                there.display()
            ),
        ),
    }
}

#[cfg(unix)]
fn secret(what: &'static str, file: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).map_or(0, |about| about.permissions().mode());
    if mode & 0o007 == 0 {
        return Finding::good(
            what,
            format!("{} is not for everybody to read", file.display()),
        );
    }
    let file = file.display();
    Finding::doubtful(
        what,
        format!("{file} can be read by every user of this machine: chmod 640 {file}"),
    )
}

#[cfg(not(unix))]
fn secret(what: &'static str, file: &Path) -> Finding {
    Finding::good(what, format!("{} can be read", file.display()))
}
