//! Drives the stand-in through unmodified cudarc, as the server does: each scenario runs in a
//! child process of its own, whose library path leads to the stand-in under the driver's name.

#![expect(
    unsafe_code,
    reason = "launches and raw driver calls are unsafe in cudarc"
)]
#![expect(
    clippy::print_stdout,
    reason = "a test program with a main of its own reports by itself"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod scenarios;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use scenarios::SCENARIOS;

/// Tells the child which scenario it is.
const SCENARIO: &str = "SIMCUDA_SCENARIO";

/// A folder that holds the library under the name that is looked for.
fn library_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simcuda");
    std::fs::create_dir_all(&folder).unwrap();
    let own = std::env::current_exe().unwrap();
    let built = own.parent().unwrap().join("libsimcuda.so");
    assert!(built.exists(), "{} was not built", built.display());
    // Copied and renamed into place, so that nobody loads half of it.
    let part = folder.join(format!("libcuda.so.{}", std::process::id()));
    std::fs::copy(built, &part).unwrap();
    std::fs::rename(part, folder.join("libcuda.so")).unwrap();
    // The other name of the same file, so that both have one state.
    let link = folder.join(format!("link.{}", std::process::id()));
    std::os::unix::fs::symlink("libcuda.so", &link).unwrap();
    std::fs::rename(link, folder.join("libnccl.so.2")).unwrap();
    folder
}

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(SCENARIO) {
        let (_, _, run) = SCENARIOS
            .iter()
            .find(|(known, _, _)| *known == name)
            .unwrap();
        run();
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let folder = library_folder();
    let mut failed = 0;
    for (name, settings, _) in SCENARIOS {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("SIMCUDA_")) {
            child.env_remove(key);
        }
        child.env(SCENARIO, name).env("LD_LIBRARY_PATH", &folder);
        for file in ["CONTROL", "REPORT", "TRACE"] {
            let path = folder.join(format!("{name}.{}", file.to_lowercase()));
            drop(std::fs::remove_file(&path));
            child.env(format!("SIMCUDA_{file}"), path);
        }
        child.envs(settings.iter().copied());
        let done = child.output().unwrap();
        let ok = done.status.success();
        println!("scenario {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            println!("{}", String::from_utf8_lossy(&done.stderr));
            failed += 1;
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
