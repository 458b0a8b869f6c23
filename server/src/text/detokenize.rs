//! Token ids to text, one at a time.

use super::Tokenizer;

/// Turns a stream of tokens into text, holding back bytes until they are whole characters.
/// All pieces together equal the tokenizer's decoding of all tokens.
#[derive(Debug)]
pub struct Detokenizer {}

impl Detokenizer {
    pub fn new(_tokenizer: Tokenizer) -> Self {
        unimplemented!()
    }

    /// The text that this token completes; often empty in the middle of a character.
    pub fn push(&mut self, _token: u32) -> String {
        unimplemented!()
    }

    /// What is left at the end: incomplete characters as U+FFFD.
    pub fn finish(&mut self) -> String {
        unimplemented!()
    }
}
