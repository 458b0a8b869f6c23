//! The library's parser of one answer. Whatever goes wrong in it, a panic included, is an error of
//! this answer, from which it does not recover.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use scheduler::TokenId;

use super::environment::Environment;

/// Follows one answer.
pub(super) struct Matcher {
    /// Or why it cannot go on.
    parser: Result<Box<TokenParser>, String>,
    pub(super) environment: Arc<Environment>,
    /// What came last.
    pub(super) last: Option<TokenId>,
}

/// Independent, and where the original stands.
impl Clone for Matcher {
    fn clone(&self) -> Self {
        let parser = match &self.parser {
            Ok(parser) => Ok(Box::new(parser.deep_clone())),
            Err(error) => Err(error.clone()),
        };
        Self {
            parser,
            environment: Arc::clone(&self.environment),
            last: self.last,
        }
    }
}

impl Matcher {
    /// `parser` is a new one.
    pub(super) fn new(mut parser: TokenParser, environment: Arc<Environment>) -> Self {
        parser.start_without_prompt();
        Self {
            parser: Ok(Box::new(parser)),
            environment,
            last: None,
        }
    }

    /// Whether nothing but an end token may come.
    pub(super) fn is_at_end(&self) -> bool {
        self.parser
            .as_ref()
            .is_ok_and(|parser| parser.stop_reason() != StopReason::NotStopped)
    }

    /// The tokens that may come next: bit `id % 32` of word `id / 32`.
    ///
    /// # Errors
    /// There are none, or finding them takes more than the limits allow.
    pub(super) fn mask(&mut self) -> Result<Arc<[u32]>, String> {
        if self.is_at_end() {
            let mask = self.environment.trie().eos_token_set();
            return Ok(mask.as_slice().into());
        }
        let mask = self.with(TokenParser::compute_mask)?;
        Ok(mask.as_slice().into())
    }

    /// Goes on by a token.
    ///
    /// # Errors
    /// It may not come.
    pub(super) fn accept(&mut self, token: TokenId) -> Result<(), String> {
        self.last = Some(token);
        // At the end of the grammar only end tokens are allowed, and they change nothing.
        if self.is_at_end() {
            return Ok(());
        }
        let n_back = self.with(|parser| {
            let n_back = parser.consume_token(token)?;
            parser.check_stop().map(|_| n_back)
        })?;
        match n_back {
            0 => Ok(()),
            _ => self.with(|_| Err("it takes back what was said")),
        }
    }

    /// Whatever it is asked, it panics from now on.
    #[cfg(test)]
    pub(super) fn panic_from_now_on(&mut self) {
        if let Ok(parser) = &mut self.parser {
            let poison = || parser.parser.test_trigger_lexer_error();
            assert!(catch_unwind(AssertUnwindSafe(poison)).is_err());
        }
    }

    /// Does something with the parser. An error of it is the end, and so is a panic.
    pub(super) fn with<T, E: Display>(
        &mut self,
        work: impl FnOnce(&mut TokenParser) -> Result<T, E>,
    ) -> Result<T, String> {
        let parser = self.parser.as_mut().map_err(|error| error.clone())?;
        let error = match catch_unwind(AssertUnwindSafe(|| work(parser))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => first_line(&format!("{error:#}")),
            Err(_) => {
                tracing::error!("matching a grammar panicked");
                "it cannot be matched".to_owned()
            }
        };
        self.parser = Err(error.clone());
        Err(error)
    }
}

/// Errors of the library go on with a dump of its state, or with a picture of what is wrong and
/// the reason below it; and they may repeat all of a grammar.
pub(super) fn first_line(message: &str) -> String {
    let mut lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    for (words, plain) in PLAIN {
        if first.contains(words) {
            return plain.to_owned();
        }
    }
    let reason = lines.find_map(|line| line.strip_prefix("error: "));
    let cut = |line: &str| match line.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    };
    match reason.filter(|_| first.ends_with(':')) {
        Some(reason) => format!("{} {}", cut(first), cut(reason)),
        None => cut(first),
    }
}

/// Characters of a line that are told.
const MAX_LINE: usize = 500;
/// What the library says, and what it means to whoever wrote the grammar.
const PLAIN: [(&str, &str); 3] = [
    ("NoExtensionBias", "nothing can match it"),
    (
        "too many states",
        "following it takes more states than the limits allow: its repetitions are too many",
    ),
    (
        "too many expressions constructed",
        "finding what may come next takes longer than the limits allow",
    ),
];
