//! Values of labels that are known before anything happens.

/// `reason` of sequences that ended.
pub(super) const FINISHED: [&str; 7] = [
    "stop",
    "length",
    "cancelled",
    "failed",
    "queue_timeout",
    "deadline",
    "refused",
];

/// `what` of files that are read anew, and with which `result`.
pub(super) const RELOADED: [&str; 3] = ["keys", "tls", "adapters"];
pub(super) const RELOAD_RESULTS: [&str; 2] = ["ok", "failed"];

/// `place` of panics.
pub(super) const PANIC_PLACES: [&str; 3] = ["step", "handler", "preparation"];

/// `result` of spans.
pub(super) const TRACE_RESULTS: [&str; 2] = ["sent", "dropped"];
