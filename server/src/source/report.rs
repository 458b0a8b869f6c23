//! Lines about downloads on standard error.

/// Tells the user what is happening before the server's log has started.
#[expect(
    clippy::print_stderr,
    reason = "downloads happen before logging is set up and may take minutes"
)]
pub(super) fn line(text: &str) {
    eprintln!("{text}");
}
