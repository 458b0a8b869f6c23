//! What a chat template tells about its model: how it calls tools, whether it thinks.

use crate::answer::ToolSyntax;
use crate::text::ChatTemplate;

/// How the served model talks.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    syntax: ToolSyntax,
    must_be_taught: bool,
    thinks: bool,
    takes_effort: bool,
}

impl Dialect {
    /// Of a model by its template; `chosen` wins over what the template tells.
    pub fn new(template: Option<&ChatTemplate>, chosen: Option<ToolSyntax>) -> Self {
        let source = template.map(ChatTemplate::source).unwrap_or_default();
        let own = ToolSyntax::of_template(&source);
        let mentions = |words: &[&str]| words.iter().any(|word| source.contains(word));
        Self {
            syntax: chosen.or(own).unwrap_or(ToolSyntax::Hermes),
            must_be_taught: own.is_none(),
            thinks: mentions(&["</think>"]),
            takes_effort: mentions(&[
                "reasoning_effort",
                "enable_thinking",
                "thinking is defined",
                "if thinking",
            ]),
        }
    }

    /// How it writes calls.
    pub fn syntax(self) -> ToolSyntax {
        self.syntax
    }

    /// Whether its template knows no tools, so that they must be explained in words.
    pub fn must_be_taught(self) -> bool {
        self.must_be_taught
    }

    /// Whether it may think before it answers.
    pub fn thinks(self) -> bool {
        self.thinks
    }

    /// Whether it can be told how much to think.
    pub fn takes_effort(self) -> bool {
        self.takes_effort
    }
}
