//! What prompts say: pieces, each made from a seed, so that pieces of equal seeds are equal and
//! any two others share nothing but by chance.

use crate::rng::Rng;

/// A piece of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    pub seed: u64,
    pub n_tokens: usize,
}

/// Ids that the vocabulary of any language model has: above its control tokens, below the end of
/// the smallest.
const IDS: std::ops::Range<u64> = 1_000..21_000;

/// The token ids of a prompt.
#[must_use]
pub fn tokens(pieces: &[Piece]) -> Vec<u32> {
    let piece = |piece: &Piece| {
        let mut rng = Rng::new(piece.seed);
        (0..piece.n_tokens).map(move |_| {
            let id = IDS.start + rng.below(IDS.end - IDS.start);
            u32::try_from(id).unwrap_or(u32::MAX)
        })
    };
    pieces.iter().flat_map(piece).collect()
}

/// How many tokens words make, as a server counts them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokensOfWords {
    /// Tokens of a prompt of no words: what a template puts around it.
    pub around: f64,
    pub per_word: f64,
}

impl TokensOfWords {
    /// From what two prompts of `n_few` and `n_many` words were counted as. `None` if that makes
    /// no sense.
    #[must_use]
    pub fn measured(few: (usize, u64), many: (usize, u64)) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let (n_few, few, n_many, many) = (few.0 as f64, few.1 as f64, many.0 as f64, many.1 as f64);
        let per_word = (many - few) / (n_many - n_few);
        let around = (few - per_word * n_few).max(0.0);
        (per_word.is_finite() && per_word > 0.1).then_some(Self { around, per_word })
    }

    /// Words that make about `n_tokens`; `is_first`: with what the template puts around them.
    fn words(&self, n_tokens: usize, is_first: bool) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count, at least one"
        )]
        let n = {
            let around = if is_first { self.around } else { 0.0 };
            ((n_tokens as f64 - around) / self.per_word)
                .round()
                .max(1.0) as usize
        };
        n
    }
}

/// The text of a prompt of about as many tokens as its pieces have.
#[must_use]
pub(crate) fn text(pieces: &[Piece], count: TokensOfWords) -> String {
    let mut text = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        push_words(&mut text, piece.seed, count.words(piece.n_tokens, i == 0));
    }
    text
}

/// `n` words drawn from a seed.
pub(crate) fn push_words(text: &mut String, seed: u64, n: usize) {
    let mut rng = Rng::new(seed);
    for _ in 0..n {
        if !text.is_empty() {
            text.push(' ');
        }
        let i = rng.below(WORDS.len() as u64) as usize;
        text.push_str(WORDS[i]);
    }
}

/// Common words, which most vocabularies have whole.
const WORDS: &[&str] = &[
    "about", "after", "again", "air", "all", "also", "animal", "answer", "apple", "area", "ask",
    "back", "ball", "bank", "base", "bear", "bed", "bird", "black", "blue", "boat", "body", "book",
    "both", "box", "boy", "bread", "bring", "build", "busy", "call", "car", "care", "carry",
    "cause", "city", "class", "clear", "close", "cold", "come", "copy", "cost", "count", "country",
    "course", "cover", "cross", "cut", "dark", "day", "deep", "door", "down", "draw", "dream",
    "drive", "dry", "early", "earth", "ease", "east", "eat", "end", "even", "ever", "eye", "face",
    "fact", "fall", "family", "far", "farm", "fast", "feel", "few", "field", "figure", "fill",
    "final", "find", "fine", "fire", "first", "fish", "five", "floor", "fly", "follow", "food",
    "foot", "force", "form", "four", "free", "friend", "front", "full", "game", "gave", "girl",
    "give", "glass", "gold", "good", "great", "green", "ground", "group", "grow", "half", "hand",
    "happen", "hard", "head", "hear", "heat", "heavy", "help", "high", "hold", "home", "horse",
    "hot", "hour", "house", "idea", "inch",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pieces_are_equal_and_others_are_not() {
        let shared = Piece {
            seed: 1,
            n_tokens: 40,
        };
        let own = |seed| Piece { seed, n_tokens: 10 };
        let (a, b) = (tokens(&[shared, own(2)]), tokens(&[shared, own(3)]));
        assert_eq!((a.len(), a[..40] == b[..40]), (50, true));
        assert_ne!(a[40..], b[40..]);
    }

    #[test]
    fn texts_are_as_long_as_was_measured() {
        // A template of 9 tokens, and five tokens for four words.
        let count = TokensOfWords::measured((40, 59), (240, 309)).unwrap();
        assert_eq!((count.around, count.per_word), (9.0, 1.25));
        let text = text(
            &[
                Piece {
                    seed: 1,
                    n_tokens: 134,
                },
                Piece {
                    seed: 2,
                    n_tokens: 50,
                },
            ],
            count,
        );
        assert_eq!(text.split(' ').count(), 100 + 40);
        assert_eq!(TokensOfWords::measured((40, 50), (240, 50)), None);
    }
}
