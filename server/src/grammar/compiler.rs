//! From the text of a grammar to a constraint, within limits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use scheduler::TokenId;
use serde_json::{Value, json};

use super::environment::Environment;
use super::matcher::{Matcher, first_line};
use super::pool::{Pool, Undone};
use super::{Constraint, Grammar, bounds, closing, limits};
use crate::text::Tokenizer;

/// Compiled grammars that are kept: most programs send the same few again and again.
const N_KEPT: usize = 32;
/// Steps that a lexer may take to be built, and to compute one set of tokens (some 15 ms).
const INITIAL_FUEL: u64 = 1_000_000;
const STEP_FUEL: u64 = 200_000;

/// Longest a grammar may take. Those that are not hostile take milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Longest the tables of a tokenizer may take, once.
const TABLES_LIMIT: Duration = Duration::from_secs(60);
/// States that a lexer may have, of one to two kilobytes each.
const MAX_LEXER_STATES: usize = 50_000;

/// A grammar that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or larger than the limits.
    #[error("{0}")]
    Invalid(String),
    /// The model has no end token, so that no answer could end where its grammar does.
    #[error("this model has no end token, which structured output needs")]
    NoEndToken,
    /// Too many grammars are being compiled. Another time it may be possible.
    #[error("too many grammars are being compiled")]
    Busy,
}

/// Compiles grammars for one tokenizer.
pub struct GrammarCompiler {
    source: Arc<Source>,
    kept: Mutex<VecDeque<(String, Constraint)>>,
    pool: Pool,
}

/// What all grammars are compiled with.
struct Source {
    tokenizer: Tokenizer,
    eos_tokens: Arc<[TokenId]>,
    /// Built when the first grammar comes.
    factory: OnceLock<Option<Factory>>,
}

/// The library's maker of parsers, and what it makes them for.
struct Factory {
    parsers: ParserFactory,
    environment: Arc<Environment>,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    pub fn new(tokenizer: Tokenizer, eos_tokens: Arc<[TokenId]>) -> Self {
        let source = Source {
            tokenizer,
            eos_tokens,
            factory: OnceLock::new(),
        };
        Self {
            source: Arc::new(source),
            kept: Mutex::default(),
            pool: Pool::new(),
        }
    }

    /// Compiles a grammar. Takes milliseconds as a rule and a second at worst, after those that
    /// came before: not for an async thread.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        limits::check_sizes(grammar).map_err(GrammarError::Invalid)?;
        let key = key(grammar);
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        self.prepare()?;
        let source = Arc::clone(&self.source);
        let given = grammar.clone();
        let built = self.pool.run(TIME_LIMIT, move || {
            limits::check(&given).map_err(GrammarError::Invalid)?;
            let factory = source.factory().ok_or(GrammarError::NoEndToken)?;
            build(factory, &given).map_err(GrammarError::Invalid)
        });
        let constraint = built.map_err(undone)??;
        self.keep(key, constraint.clone());
        Ok(constraint)
    }

    /// The tables of the tokenizer, which no grammar is charged for.
    fn prepare(&self) -> Result<(), GrammarError> {
        if self.source.factory.get().is_some() {
            return Ok(());
        }
        let source = Arc::clone(&self.source);
        let built = self.pool.run(TABLES_LIMIT, move || {
            source.factory();
        });
        built.map_err(undone)
    }

    /// Whether a grammar is within the limits, before it becomes part of another.
    pub fn check(&self, grammar: &Grammar) -> Result<(), GrammarError> {
        limits::check(grammar).map_err(GrammarError::Invalid)
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

/// What a grammar is known by: its text, as the order of properties matters.
fn key(grammar: &Grammar) -> String {
    match grammar {
        Grammar::JsonSchema(schema) => format!("schema {schema}"),
        Grammar::Regex(regex) => format!("regex {regex}"),
        Grammar::Choice(choices) => format!("choice {choices:?}"),
        Grammar::Lark(text) => format!("lark {text}"),
    }
}

fn undone(why: Undone) -> GrammarError {
    match why {
        Undone::Busy => GrammarError::Busy,
        Undone::TooSlow => GrammarError::Invalid("it takes too long to compile".to_owned()),
        // A panic of the library is an error of this grammar, like any other.
        Undone::Failed => GrammarError::Invalid("it cannot be compiled".to_owned()),
    }
}

impl Source {
    fn factory(&self) -> Option<&Factory> {
        self.factory.get_or_init(|| self.build_factory()).as_ref()
    }

    fn build_factory(&self) -> Option<Factory> {
        let environment = Environment::new(&self.tokenizer, &self.eos_tokens)?;
        let environment = Arc::new(environment);
        let shared: TokEnv = environment.clone();
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let caps = InferenceCapabilities::default();
        let mut parsers = match ParserFactory::new(&shared, caps, &slices) {
            Ok(parsers) => parsers,
            Err(error) => {
                tracing::error!(%error, "structured output is not possible with this tokenizer");
                return None;
            }
        };
        parsers.quiet();
        let limits = parsers.limits_mut();
        limits.initial_lexer_fuel = INITIAL_FUEL;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.max_lexer_states = MAX_LEXER_STATES;
        // It takes as long as a large pattern wants it to.
        limits.precompute_large_lexemes = false;
        limits.verbose_errors = false;
        Some(Factory {
            parsers,
            environment,
        })
    }
}

fn build(factory: &Factory, grammar: &Grammar) -> Result<Constraint, String> {
    let top = match grammar {
        Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(prepared(schema)?),
        Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Grammar::Choice(choices) => TopLevelGrammar::from_lark(any_of(choices)?),
        Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
    };
    let parser = factory.parsers.create_parser(top);
    let parser = parser.map_err(|error| first_line(&format!("{error:#}")))?;
    let mut matcher = Matcher::new(parser, Arc::clone(&factory.environment));
    // A grammar that is too expensive, or that nothing matches, should be refused now. The library
    // sets a lexer's limits when it computes a whole set of tokens, so this comes first of all.
    matcher.mask()?;
    let mut constraint = Constraint::new(matcher);
    constraint.allowed()?;
    Ok(constraint)
}

/// A schema with our way of writing JSON: no white space but single blanks and indented lines,
/// so that no model can go on writing blanks for ever, and no properties that nobody spoke of.
fn prepared(schema: &Value) -> Result<Value, String> {
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        Value::Bool(true) => json!({}),
        _ => return Err("a schema must be an object".to_owned()),
    };
    bounds::fit(&mut schema)?;
    closing::close(&mut schema);
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
