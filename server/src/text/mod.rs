//! Text on both sides of the model: templates and tokens going in, text coming out.

mod detokenize;
mod gguf_export;
mod gguf_tokenizer;
mod guard;
mod pieces;
mod pretokenize;
mod stop;
mod template;
mod tokenizer;

pub use detokenize::Detokenizer;
pub use gguf_export::gguf_metadata;
pub use guard::Guard;
pub use stop::{StopMatch, StopSet, StopStrings};
pub use template::{ChatTemplate, Clock, TemplateError};
pub use tokenizer::{Tokenizer, TokenizerError};
