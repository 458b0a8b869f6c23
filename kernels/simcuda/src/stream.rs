//! Streams and events.

use std::collections::VecDeque;
use std::time::Instant;

use crate::command::Command;

/// A stream: commands that were given and have not run.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) device: u32,
    pub(crate) queue: VecDeque<Command>,
    /// The capture that commands go to instead.
    pub(crate) capture: Option<usize>,
}

impl Stream {
    pub(crate) fn new(device: u32) -> Self {
        Self {
            device,
            queue: VecDeque::new(),
            capture: None,
        }
    }
}

/// An event.
#[derive(Debug, Default)]
pub(crate) struct Event {
    /// Records asked for, and those reached.
    pub(crate) n_asked: u64,
    pub(crate) n_reached: u64,
    /// The stream of the last record.
    pub(crate) stream: usize,
    /// The capture that the last record is part of.
    pub(crate) capture: Option<usize>,
    /// When the last record was reached.
    pub(crate) at: Option<Instant>,
}
