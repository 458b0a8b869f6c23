//! Token ids to text, one at a time.

use super::Tokenizer;
use super::pieces::Leading;

/// Turns a stream of tokens into text, holding back bytes until they are whole characters.
/// All pieces together equal the tokenizer's decoding of all tokens. Each token costs time
/// proportional to its own bytes.
///
/// One difference from the reference decoders: they turn a run of byte tokens that is broken
/// anywhere into U+FFFD from its first byte on; here whole characters before the break survive
/// (they may have been sent already).
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    /// Beginning of a character, at most three bytes.
    pending: Vec<u8>,
    leading: Leading,
}

impl Detokenizer {
    /// For a text of its own: the space that SentencePiece puts before a text is taken off.
    pub fn new(tokenizer: Tokenizer) -> Self {
        let leading = tokenizer.pieces().leading;
        Self {
            tokenizer,
            pending: Vec::new(),
            leading,
        }
    }

    /// For text that continues a prompt: a leading space separates the two and is kept.
    pub fn continuing(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            pending: Vec::new(),
            leading: Leading::Keep,
        }
    }

    /// The text that this token completes; often empty in the middle of a character. Ids outside
    /// of the vocabulary have no text.
    pub fn push(&mut self, token: u32) -> String {
        let pieces = self.tokenizer.pieces();
        if let Some(mut bytes) = pieces.bytes(token) {
            match self.leading {
                Leading::Keep => {}
                Leading::Strip(n) => {
                    let n_spaces = bytes.iter().take(n).take_while(|&&b| b == b' ').count();
                    bytes = &bytes[n_spaces..];
                    self.leading = match bytes {
                        [] if n > n_spaces => Leading::Strip(n - n_spaces),
                        _ => Leading::Keep,
                    };
                }
                Leading::FirstToken => {
                    self.pending.extend(bytes.iter().filter(|&&b| b != b' '));
                    bytes = &[];
                    // A special token is not a token of the text.
                    if !pieces.is_special(token) {
                        self.leading = Leading::Keep;
                    }
                }
            }
            self.pending.extend_from_slice(bytes);
        }
        self.take_characters()
    }

    /// What is left at the end: incomplete characters as U+FFFD.
    pub fn finish(&mut self) -> String {
        let n = match self.pending.len() {
            n if self.tokenizer.pieces().replace_each_byte => n,
            n => n.min(1),
        };
        self.pending.clear();
        "\u{fffd}".repeat(n)
    }

    /// Takes everything but the beginning of a character at the end.
    fn take_characters(&mut self) -> String {
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = broken;
                    let Some(n_bytes) = error.error_len() else {
                        break;
                    };
                    let n_marks = if self.tokenizer.pieces().replace_each_byte {
                        n_bytes
                    } else {
                        1
                    };
                    text.push_str(&"\u{fffd}".repeat(n_marks));
                    rest = &rest[n_bytes..];
                }
            }
        }
        let n_taken = self.pending.len() - rest.len();
        self.pending.drain(..n_taken);
        text
    }
}
