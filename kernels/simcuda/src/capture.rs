//! Captures and graphs: commands in the order they were given, which keeps every dependency.

use crate::command::Command;

/// Commands being captured.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The stream that began it.
    pub(crate) origin: usize,
    pub(crate) commands: Vec<Command>,
    /// Why it cannot end well.
    pub(crate) broken: bool,
}

/// A graph, instantiated or not.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) commands: Vec<Command>,
}
