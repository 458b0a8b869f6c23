//! Stop strings over streamed text.

use std::sync::Arc;

/// What may be emitted after a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Text that is safe to emit: no part of it can belong to a stop string.
    pub text: String,
    /// A stop string was completed; nothing after `text` may be emitted.
    pub stopped: bool,
}

/// Finds the first stop string in a stream, never letting a part of it through.
///
/// "First" is the stop string that is complete first; of two that end at the same character the
/// longer one. So the result depends on the text alone, not on how it is cut into pieces. An
/// empty stop string never matches.
#[derive(Debug)]
pub struct StopStrings {
    set: StopSet,
    /// How far the stream has matched each string of the set, in bytes.
    n_matched: Vec<usize>,
    /// Text that may still become a stop string.
    held: String,
    stopped: bool,
    /// The stop string that was completed.
    matched: Option<String>,
}

/// The stop strings of a request, prepared once for all of its choices. Clones share them.
#[derive(Clone, Debug)]
pub struct StopSet {
    needles: Arc<[Needle]>,
}

impl StopSet {
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        Self {
            needles: stops.map(|stop| Needle::new(stop)).collect(),
        }
    }
}

/// One stop string, to be matched byte by byte (Knuth, Morris and Pratt 1977).
#[derive(Debug)]
struct Needle {
    bytes: Vec<u8>,
    /// `borders[i]`: length of the longest proper border of the first `i + 1` bytes.
    borders: Vec<usize>,
}

impl Needle {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        for end in 1..bytes.len() {
            let mut border = borders[end - 1];
            while border > 0 && bytes[border] != bytes[end] {
                border = borders[border - 1];
            }
            borders[end] = border + usize::from(bytes[border] == bytes[end]);
        }
        Self { bytes, borders }
    }

    /// How much is matched after one more byte; all of it completes the stop string.
    fn advance(&self, mut n_matched: usize, byte: u8) -> usize {
        while n_matched > 0 && self.bytes[n_matched] != byte {
            n_matched = self.borders[n_matched - 1];
        }
        n_matched + usize::from(self.bytes[n_matched] == byte)
    }
}

impl StopStrings {
    pub fn new(set: StopSet) -> Self {
        Self {
            n_matched: vec![0; set.needles.len()],
            set,
            held: String::new(),
            stopped: false,
            matched: None,
        }
    }

    /// The stop string that was completed.
    pub fn matched(&self) -> Option<&str> {
        self.matched.as_deref()
    }

    /// Takes the next piece. After a match everything is swallowed.
    pub fn push(&mut self, piece: &str) -> StopMatch {
        if self.stopped {
            return StopMatch {
                text: String::new(),
                stopped: true,
            };
        }
        let n_before = self.held.len();
        self.held.push_str(piece);
        for (index, &byte) in piece.as_bytes().iter().enumerate() {
            let mut longest = 0;
            for (needle, n_matched) in self.set.needles.iter().zip(&mut self.n_matched) {
                *n_matched = needle.advance(*n_matched, byte);
                if *n_matched == needle.bytes.len() {
                    longest = longest.max(*n_matched);
                }
            }
            if longest > 0 {
                let mut text = std::mem::take(&mut self.held);
                text.truncate(n_before + index + 1);
                self.matched = Some(text.split_off(n_before + index + 1 - longest));
                self.stopped = true;
                return StopMatch {
                    text,
                    stopped: true,
                };
            }
        }
        let n_held = self.n_matched.iter().copied().max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - n_held);
        StopMatch {
            text: std::mem::replace(&mut self.held, held),
            stopped: false,
        }
    }

    /// Text held back that turned out to be no stop string: the text ends here, or goes on after
    /// something else.
    pub fn finish(&mut self) -> String {
        self.n_matched.fill(0);
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may be emitted of the whole text, by trying every end.
    fn naive<'a>(stops: &[&str], text: &'a str) -> (&'a str, bool) {
        for end in 1..=text.len() {
            let longest = stops
                .iter()
                .filter(|s| !s.is_empty() && text.as_bytes()[..end].ends_with(s.as_bytes()))
                .map(|s| s.len())
                .max();
            if let Some(len) = longest {
                return (&text[..end - len], true);
            }
        }
        (text, false)
    }

    fn finder(stops: &[&str]) -> StopStrings {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        StopStrings::new(StopSet::new(&stops))
    }

    #[test]
    fn choices_share_the_prepared_strings_and_nothing_else() {
        let set = StopSet::new(&["ab".to_owned()]);
        let mut choices = [StopStrings::new(set.clone()), StopStrings::new(set)];
        assert!(Arc::ptr_eq(
            &choices[0].set.needles,
            &choices[1].set.needles
        ));
        assert_eq!(choices[0].push("a").text, "");
        assert_eq!(choices[1].push("b").text, "b");
        assert!(choices[0].push("b").stopped);
        assert_eq!(choices[1].push("b").text, "b");
    }

    fn stream(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut finder = finder(stops);
        let mut out = String::new();
        let mut stopped = false;
        for piece in pieces {
            let found = finder.push(piece);
            assert!(!stopped || found.text.is_empty());
            out.push_str(&found.text);
            stopped |= found.stopped;
        }
        out.push_str(&finder.finish());
        (out, stopped)
    }

    #[test]
    fn every_split_of_every_text_equals_the_naive_search() {
        let stops: [&[&str]; 7] = [
            &["ab"],
            &["aab", "b"],
            &["aba", "bab", "aab"],
            &["aaa", "aba", ""],
            &["é", "aé", "bb"],
            &["abcd", "bc"],
            &[],
        ];
        let letters = ["a", "b", "é"];
        for stops in stops {
            for n in 0..=7_u32 {
                for code in 0..3_usize.pow(n) {
                    let chars: Vec<&str> =
                        (0..n).map(|i| letters[code / 3_usize.pow(i) % 3]).collect();
                    let text = chars.concat();
                    let (expected, expected_stop) = naive(stops, &text);
                    for cuts in 0..1_u32 << n.saturating_sub(1) {
                        let mut pieces = vec![String::new()];
                        for (i, c) in chars.iter().enumerate() {
                            if i > 0 && cuts >> (i - 1) & 1 == 1 {
                                pieces.push(String::new());
                            }
                            pieces.last_mut().unwrap().push_str(c);
                        }
                        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                        assert_eq!(
                            stream(stops, &pieces),
                            (expected.into(), expected_stop),
                            "{stops:?} {pieces:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn holds_back_only_what_can_still_match() {
        let mut finder = finder(&["\n\nUser:", "###"]);
        assert_eq!(finder.push("Hello\n").text, "Hello");
        assert_eq!(finder.push("\n").text, "");
        assert_eq!(finder.push("\n").text, "\n");
        assert_eq!(finder.push("Use#").text, "\n\nUse");
        assert_eq!(
            finder.push("##rest"),
            StopMatch {
                text: String::new(),
                stopped: true
            }
        );
        assert_eq!(finder.finish(), "");
    }

    #[test]
    fn nothing_matches_across_the_end_of_a_text() {
        let mut finder = finder(&["ab"]);
        assert_eq!(finder.push("xa").text, "x");
        assert_eq!(finder.finish(), "a");
        assert_eq!(finder.push("b").text, "b");
        assert!(finder.push("ab").stopped);
    }

    #[test]
    fn a_long_stream_takes_linear_time() {
        let mut finder = finder(&[&("a".repeat(2000) + "b")]);
        let started = std::time::Instant::now();
        let mut n_out = 0;
        for _ in 0..20_000 {
            n_out += finder.push(&"a".repeat(50)).text.len();
        }
        assert_eq!(n_out + finder.finish().len(), 1_000_000);
        assert!(started.elapsed().as_secs() < 2);
    }
}
