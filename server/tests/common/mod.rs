//! What tests of the binary share.

use std::process::Output;

/// It ended with one line that contains all of `parts`, and without a panic.
pub(crate) fn assert_refused(output: Output, parts: &[&str]) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let line = stderr.trim_end().lines().last().unwrap_or("");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {stderr}");
    }
}
