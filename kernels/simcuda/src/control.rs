//! Faults to inject, from the file that `SIMCUDA_CONTROL` names. It is read again whenever it
//! changes. One fault a line; `#` begins a comment:
//!
//! ```text
//! fail_alloc above_bytes=1000000              # allocations fail once more would be in use
//! fail_launch kernel=norm nth=3 error=701     # the third launch from here on fails at once
//! fail_launch kernel=norm nth=1 error=719 late=1  # ... fails when it runs: the context is lost
//! slow_launch kernel=norm ms=50               # every launch takes so long
//! ```
//!
//! With `device=1` a fault is of that device only. `kernel=*` means any. A launch inside a graph counts when it is replayed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::report::tell;

/// A fault of launches of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FailLaunch {
    kernel: String,
    device: Option<u64>,
    /// Launches until it happens; 0 when it has.
    left: u64,
    error: Error,
    late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SlowLaunch {
    kernel: String,
    ms: u64,
}

/// The faults that are in force.
#[derive(Debug, Default)]
pub(crate) struct Control {
    path: Option<PathBuf>,
    read_at: Option<SystemTime>,
    above_bytes: Option<u64>,
    /// The device whose allocations fail; `None`: all.
    above_device: Option<u64>,
    fail: Vec<FailLaunch>,
    slow: Vec<SlowLaunch>,
}

fn field(words: &[&str], name: &str) -> Option<String> {
    let found = words
        .iter()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.map(str::to_owned)
}

fn matches(pattern: &str, kernel: &str) -> bool {
    pattern == "*" || pattern == kernel
}

/// Whether a fault of this device, or of any, is one of `device`.
fn concerns(wanted: Option<u64>, device: u32) -> bool {
    wanted.is_none_or(|wanted| wanted == u64::from(device))
}

impl Control {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// Reads the file if it has changed.
    fn refresh(&mut self) {
        let Some(path) = &self.path else { return };
        let changed = std::fs::metadata(path)
            .and_then(|data| data.modified())
            .ok();
        if changed == self.read_at {
            return;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        self.read_at = changed;
        self.above_bytes = None;
        self.fail.clear();
        self.slow.clear();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if !words.is_empty() && self.rule(&words).is_none() {
                tell(&format!("control file: `{line}` is not a fault"));
            }
        }
    }

    fn rule(&mut self, words: &[&str]) -> Option<()> {
        let number = |name: &str| field(words, name)?.parse::<u64>().ok();
        match words[0] {
            "fail_alloc" => {
                self.above_bytes = Some(number("above_bytes")?);
                self.above_device = number("device");
            }
            "fail_launch" => self.fail.push(FailLaunch {
                kernel: field(words, "kernel")?,
                device: number("device"),
                left: number("nth")?,
                error: Error(number("error")? as u32),
                late: number("late") == Some(1),
            }),
            "slow_launch" => self.slow.push(SlowLaunch {
                kernel: field(words, "kernel")?,
                ms: number("ms")?,
            }),
            _ => return None,
        }
        Some(())
    }

    /// Whether an allocation fails that leaves so many bytes in use.
    pub(crate) fn alloc(&mut self, in_use: u64, device: u32) -> Result<(), Error> {
        self.refresh();
        let is_meant = concerns(self.above_device, device);
        match self.above_bytes {
            Some(limit) if in_use > limit && is_meant => Err(Error::OUT_OF_MEMORY),
            _ => Ok(()),
        }
    }

    /// Counts a launch that is asked for (`late` false) or that runs (`late` true).
    pub(crate) fn launch(&mut self, kernel: &str, device: u32, late: bool) -> Result<(), Error> {
        self.refresh();
        for rule in &mut self.fail {
            let is_meant = concerns(rule.device, device) && matches(&rule.kernel, kernel);
            if rule.late == late && rule.left > 0 && is_meant {
                rule.left -= 1;
                if rule.left == 0 {
                    return Err(rule.error);
                }
            }
        }
        Ok(())
    }

    /// What a launch takes longer.
    pub(crate) fn delay(&self, kernel: &str) -> Duration {
        let rules = self
            .slow
            .iter()
            .filter(|rule| matches(&rule.kernel, kernel));
        Duration::from_millis(rules.map(|rule| rule.ms).sum())
    }
}
