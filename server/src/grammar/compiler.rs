//! From the text of a grammar to a constraint, within limits.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use scheduler::TokenId;
use serde_json::{Value, json};

use super::constraint::first_line;
use super::environment::Environment;
use super::{Constraint, Grammar, limits};
use crate::text::Tokenizer;

/// Compiled grammars that are kept: most programs send the same few again and again.
const N_KEPT: usize = 32;
/// Steps that a lexer may take to be built, and to compute one set of tokens (some 15 ms).
const INITIAL_FUEL: u64 = 1_000_000;
const STEP_FUEL: u64 = 200_000;

/// A grammar that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or larger than the limits.
    #[error("{0}")]
    Invalid(String),
    /// The model has no end token, so that no answer could end where its grammar does.
    #[error("this model has no end token, which structured output needs")]
    NoEndToken,
}

/// Compiles grammars for one tokenizer.
pub struct GrammarCompiler {
    tokenizer: Tokenizer,
    eos_tokens: Arc<[TokenId]>,
    /// Built when the first grammar comes.
    factory: OnceLock<Option<ParserFactory>>,
    kept: Mutex<VecDeque<(String, Constraint)>>,
    /// One at a time: whoever sends costly grammars takes one core at most from the engine.
    compiling: Mutex<()>,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    pub fn new(tokenizer: Tokenizer, eos_tokens: Arc<[TokenId]>) -> Self {
        Self {
            tokenizer,
            eos_tokens,
            factory: OnceLock::new(),
            kept: Mutex::default(),
            compiling: Mutex::default(),
        }
    }

    /// Compiles a grammar. Takes milliseconds as a rule and a second at worst: not for an async
    /// thread.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        limits::check(grammar).map_err(GrammarError::Invalid)?;
        let key = format!("{grammar:?}");
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let _turn = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Somebody may have sent the same in the meantime.
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let factory = self.factory.get_or_init(|| self.factory());
        let factory = factory.as_ref().ok_or(GrammarError::NoEndToken)?;
        // A panic of the library is an error of this grammar, like any other.
        let built = catch_unwind(AssertUnwindSafe(|| build(factory, grammar)));
        let constraint = built
            .unwrap_or_else(|_| Err("it cannot be compiled".to_owned()))
            .map_err(GrammarError::Invalid)?;
        self.keep(key, constraint.clone());
        Ok(constraint)
    }

    /// Whether a grammar is within the limits, before it becomes part of another.
    pub fn check(&self, grammar: &Grammar) -> Result<(), GrammarError> {
        limits::check(grammar).map_err(GrammarError::Invalid)
    }

    fn factory(&self) -> Option<ParserFactory> {
        let environment = Environment::new(&self.tokenizer, &self.eos_tokens)?;
        let environment: TokEnv = Arc::new(environment);
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let caps = InferenceCapabilities::default();
        let mut factory = match ParserFactory::new(&environment, caps, &slices) {
            Ok(factory) => factory,
            Err(error) => {
                tracing::error!(%error, "structured output is not possible with this tokenizer");
                return None;
            }
        };
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = INITIAL_FUEL;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.verbose_errors = false;
        Some(factory)
    }

    fn kept(&self, key: &str) -> Option<Constraint> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(one, _)| one == key);
        found.map(|(_, constraint)| constraint.clone())
    }

    fn keep(&self, key: String, constraint: Constraint) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, constraint));
        kept.truncate(N_KEPT);
    }
}

fn build(factory: &ParserFactory, grammar: &Grammar) -> Result<Constraint, String> {
    let top = match grammar {
        Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(prepared(schema)?),
        Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Grammar::Choice(choices) => TopLevelGrammar::from_lark(any_of(choices)?),
        Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
    };
    let parser = factory.create_parser(top);
    let parser = parser.map_err(|error| first_line(&format!("{error:#}")))?;
    let mut constraint = Constraint::new(Matcher::new(Ok(parser)));
    // A grammar that is too expensive, or that nothing matches, should be refused now.
    constraint.allowed()?;
    Ok(constraint)
}

/// A schema with our way of writing JSON: no white space but single blanks and indented lines,
/// so that no model can go on writing blanks for ever.
fn prepared(schema: &Value) -> Result<Value, String> {
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        Value::Bool(true) => json!({}),
        _ => return Err("a schema must be an object".to_owned()),
    };
    schema["x-guidance"] = json!({"whitespace_pattern": r"( |\n {0,40})?"});
    Ok(schema)
}

fn any_of(choices: &[String]) -> Result<String, String> {
    if choices.is_empty() {
        return Err("there is nothing to choose from".to_owned());
    }
    let quoted = choices.iter().map(|choice| lark_string(choice));
    Ok(format!("start: {}", quoted.collect::<Vec<_>>().join(" | ")))
}

/// A schema as a rule of a grammar in Lark's notation.
pub(crate) fn schema_in_lark(schema: &Value) -> Result<String, String> {
    Ok(format!("%json {}", prepared(schema)?))
}

/// A string as Lark writes it, which is how JSON does.
pub(crate) fn lark_string(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
