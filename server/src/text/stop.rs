//! Stop strings over streamed text.

/// What may be emitted after a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Text that is safe to emit: no part of it can belong to a stop string.
    pub text: String,
    /// A stop string was completed; nothing after `text` may be emitted.
    pub stopped: bool,
}

/// Finds the first stop string in a stream, never letting a part of it through.
#[derive(Debug)]
pub struct StopStrings {}

impl StopStrings {
    pub fn new(_stops: Vec<String>) -> Self {
        unimplemented!()
    }

    pub fn push(&mut self, _piece: &str) -> StopMatch {
        unimplemented!()
    }

    /// Text held back that turned out to be no stop string.
    pub fn finish(&mut self) -> String {
        unimplemented!()
    }
}
