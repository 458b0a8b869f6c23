//! What each token contributes to text: the decoder of a tokenizer.json as a table of bytes.

use serde_json::Value;

/// Bytes of every token and the rules that span tokens.
#[derive(Debug)]
pub(super) struct Pieces {
    tokens: Vec<Option<Piece>>,
    /// What happens to spaces at the very beginning of a text.
    pub(super) leading: Leading,
    /// Invalid UTF-8 becomes one U+FFFD per byte (byte fallback) instead of one per broken
    /// character (byte-level).
    pub(super) replace_each_byte: bool,
}

#[derive(Debug)]
struct Piece {
    bytes: Box<[u8]>,
    special: bool,
}

/// Spaces at the beginning of a text, which SentencePiece puts there itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leading {
    Keep,
    /// The text loses up to this many leading spaces.
    Strip(usize),
    /// The first token loses its spaces.
    FirstToken,
}

/// One step of a decoder, applied to the spelling of a token.
#[derive(Debug)]
enum Step {
    Replace(String, String),
    ByteFallback,
    ByteLevel,
}

/// A decoder of tokenizer.json, reduced to what a table can hold.
#[derive(Debug)]
pub(super) struct Decoder {
    steps: Vec<Step>,
    leading: Leading,
    fused: bool,
}

impl Decoder {
    /// Reads the `decoder` of a tokenizer.json. The message names what is not supported.
    pub(super) fn parse(decoder: &Value) -> Result<Self, String> {
        let mut parsed = Self {
            steps: Vec::new(),
            leading: Leading::Keep,
            fused: false,
        };
        parsed.add(decoder)?;
        Ok(parsed)
    }

    fn add(&mut self, decoder: &Value) -> Result<(), String> {
        let kind = decoder["type"].as_str().unwrap_or("none");
        match kind {
            "Sequence" => {
                for step in decoder["decoders"].as_array().into_iter().flatten() {
                    self.add(step)?;
                }
            }
            "ByteLevel" => self.steps.push(Step::ByteLevel),
            "ByteFallback" => self.steps.push(Step::ByteFallback),
            "Fuse" => self.fused = true,
            "Replace" => {
                let from = decoder["pattern"]["String"].as_str();
                let to = decoder["content"].as_str();
                let (Some(from), Some(to)) = (from, to) else {
                    return Err("decoder Replace with a regular expression is not supported".into());
                };
                self.steps.push(Step::Replace(from.into(), to.into()));
            }
            "Metaspace" => {
                let space = decoder["replacement"].as_str().unwrap_or("\u{2581}");
                self.steps.push(Step::Replace(space.into(), " ".into()));
                // Older files say `add_prefix_space` where newer ones have a scheme.
                let never = decoder["prepend_scheme"] == "never"
                    || decoder["add_prefix_space"] == Value::Bool(false);
                if !never {
                    self.leading = Leading::FirstToken;
                }
            }
            "Strip" => {
                let simple = self.fused && decoder["content"] == " " && decoder["stop"] == 0;
                let start = decoder["start"].as_u64().filter(|_| simple);
                let start = start.ok_or(
                    "decoder Strip other than of leading spaces of the whole text is not supported",
                )?;
                self.leading = Leading::Strip(usize::try_from(start).map_err(|e| e.to_string())?);
            }
            other => return Err(format!("decoder {other} is not supported")),
        }
        Ok(())
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_string();
        for step in &self.steps {
            match step {
                Step::Replace(from, to) => text = text.replace(from, to),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => {
                    // A token with a character outside of the alphabet stands for itself.
                    let bytes: Option<Vec<u8>> = text.chars().map(byte_of_char).collect();
                    return bytes.unwrap_or_else(|| text.into_bytes());
                }
            }
        }
        text.into_bytes()
    }
}

impl Pieces {
    /// `tokens`: spelling of each id (`None`: a hole) and whether text leaves it out.
    pub(super) fn new(decoder: &Decoder, tokens: Vec<Option<(String, bool)>>) -> Self {
        let byte_level = decoder.steps.iter().any(|s| matches!(s, Step::ByteLevel));
        Self {
            tokens: tokens
                .into_iter()
                .map(|token| {
                    token.map(|(spelling, special)| Piece {
                        bytes: decoder.bytes(&spelling).into(),
                        special,
                    })
                })
                .collect(),
            leading: decoder.leading,
            replace_each_byte: !byte_level,
        }
    }

    /// Bytes of a token, none for special tokens; `None` outside of the vocabulary.
    pub(super) fn bytes(&self, token: u32) -> Option<&[u8]> {
        let piece = self.get(token)?;
        Some(if piece.special { &[] } else { &piece.bytes })
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        self.get(token).is_some_and(|piece| piece.special)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Bytes of the longest token that is text.
    pub(super) fn max_bytes(&self) -> usize {
        let pieces = self.tokens.iter().flatten();
        pieces.map(|piece| piece.bytes.len()).max().unwrap_or(0)
    }

    fn get(&self, token: u32) -> Option<&Piece> {
        self.tokens.get(usize::try_from(token).ok()?)?.as_ref()
    }
}

/// The byte of a `<0xNN>` token.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok())?
}

/// Inverse of the byte alphabet of GPT-2: printable Latin-1 stands for itself, the other 68 bytes
/// are U+0100 and up, in order.
fn byte_of_char(c: char) -> Option<u8> {
    let printable = |code: u32| matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(c);
    if printable(code) {
        return u8::try_from(code).ok();
    }
    let index = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0..=255_u8)
        .filter(|&byte| !printable(byte.into()))
        .nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let mut seen: Vec<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(byte_of_char)
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char('本'), None);
    }

    #[test]
    fn unsupported_decoders_are_named() {
        let error = Decoder::parse(&json!({"type": "CTC"})).unwrap_err();
        assert!(error.contains("CTC"), "{error}");
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        assert!(Decoder::parse(&strip).is_err());
        assert!(Decoder::parse(&Value::Null).is_err());
    }
}
