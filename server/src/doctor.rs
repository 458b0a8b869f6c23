//! `understudy doctor`: whether a server with these settings can run here, and what to change.
//!
//! Nothing is loaded, downloaded or changed; what is looked at is what the server would use.

mod files;
mod machine;
mod model;
mod names;

use std::fmt;
use std::io::{self, Write};

use crate::args::ServeArgs;
use crate::settings::Settings;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Good,
    /// The server runs, but not as well or as safely as it could.
    Doubtful,
    /// The server does not start.
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: &'static str,
    /// What was found, and what to change about it.
    text: String,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            level: Level::Good,
            what,
            text,
        }
    }

    fn doubtful(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Doubtful,
            ..Self::good(what, text)
        }
    }

    fn bad(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Bad,
            ..Self::good(what, text)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "ok  ",
            Level::Doubtful => "warn",
            Level::Bad => "FAIL",
        };
        write!(f, "{level}  {:<10} {}", self.what, self.text)
    }
}

/// Looks at everything and prints what was found. An error if the server would not start.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let findings = examine(args);
    let mut out = io::stdout();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let is_bad = |finding: &&Finding| finding.level == Level::Bad;
    match findings.iter().filter(is_bad).count() {
        0 => Ok(()),
        1 => anyhow::bail!("the server would not start: see the line with FAIL"),
        n => anyhow::bail!("the server would not start: see the {n} lines with FAIL"),
    }
}

fn examine(args: ServeArgs) -> Vec<Finding> {
    let mut findings = machine::examine(args.threads);
    match Settings::resolve(args) {
        Ok(settings) => {
            findings.push(Finding::good("settings", "they fit together"));
            findings.extend(model::examine(&settings));
            findings.extend(files::examine(&settings));
            findings.extend(names::examine(&settings));
            findings.extend(machine::examine_network(&settings));
        }
        Err(error) => findings.push(Finding::bad("settings", error.to_string())),
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};

    fn findings(words: &[&str]) -> Vec<Finding> {
        match Args::command_of([&["understudy", "doctor"], words].concat()) {
            Ok(Command::Doctor(args)) => examine(*args),
            other => panic!("{other:?}"),
        }
    }

    fn of<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
        let found = findings.iter().find(|finding| finding.what == what);
        found.unwrap_or_else(|| panic!("no {what}: {findings:?}"))
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_change() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let store = file.join("store");
        let found = findings(&[
            "/nowhere/model",
            "--port",
            &port,
            "--store-dir",
            store.to_str().unwrap(),
        ]);
        assert_eq!(of(&found, "settings").level, Level::Good);
        for (what, word) in [
            ("model", "/nowhere/model"),
            ("port", "--port"),
            ("store", "file"),
        ] {
            let finding = of(&found, what);
            assert_eq!(finding.level, Level::Bad, "{finding}");
            assert!(finding.text.contains(word), "{finding}");
        }
        let senseless = findings(&["--max-num-seqs", "0"]);
        assert!(of(&senseless, "settings").text.contains("--max-num-seqs"));
    }

    #[test]
    fn adapters_and_aliases_that_cannot_be_served_are_bad() {
        for (words, what, word) in [
            (&["--pin", "zz"][..], "adapters", "--pin zz"),
            (
                &["--adapter-dir", "/nowhere"],
                "adapters",
                "--adapter-dir /nowhere",
            ),
            (&["--alias", "a=b"], "aliases", "`b`"),
            (
                &["--served-model-name", "m", "--alias", "m=m"],
                "aliases",
                "hide",
            ),
        ] {
            let found = findings(&[&["--port", "0"], words].concat());
            let finding = of(&found, what);
            assert_eq!(finding.level, Level::Bad, "{finding}");
            assert!(finding.text.contains(word), "{finding}");
        }
        let fit = ["--port", "0", "--served-model-name", "m", "--alias", "a=m"];
        assert_eq!(of(&findings(&fit), "aliases").level, Level::Good);
        // An adapter may be put there later.
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let found = findings(&["--port", "0", "--adapter-dir", dir, "--alias", "a=b"]);
        assert_eq!(of(&found, "aliases").level, Level::Doubtful);
    }

    #[test]
    fn an_open_server_is_doubtful() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().to_str().unwrap();
        let found = findings(&["--host", "0.0.0.0", "--port", "0", "--store-dir", store]);
        assert_eq!(of(&found, "keys").level, Level::Doubtful);
        assert_eq!(of(&found, "store").level, Level::Good);
        assert!(of(&found, "cpu").text.contains("thread"));
        let home = findings(&["--port", "0"]);
        assert_eq!(of(&home, "keys").level, Level::Good);
    }
}
