//! What a chat template tells about its model: how it calls tools, whether it thinks.

use crate::answer::{ReasoningSyntax, ToolSyntax};
use crate::text::ChatTemplate;

/// How the served model talks.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    syntax: ToolSyntax,
    must_be_taught: bool,
    reasoning: ReasoningSyntax,
    takes_effort: bool,
}

impl Dialect {
    /// Of a model by its template; what is chosen wins over what the template tells.
    pub fn new(
        template: Option<&ChatTemplate>,
        syntax: Option<ToolSyntax>,
        reasoning: Option<ReasoningSyntax>,
    ) -> Self {
        let source = template.map(ChatTemplate::source).unwrap_or_default();
        let own = ToolSyntax::of_template(&source);
        let mentions = |words: &[&str]| words.iter().any(|word| source.contains(word));
        Self {
            syntax: syntax.or(own).unwrap_or(ToolSyntax::Hermes),
            must_be_taught: own.is_none(),
            reasoning: reasoning.unwrap_or_else(|| ReasoningSyntax::of_template(&source)),
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

    /// Whether it may think between tags before it answers.
    pub fn thinks(self) -> bool {
        self.reasoning == ReasoningSyntax::Think
    }

    /// Whether its answers are messages on channels.
    pub fn has_channels(self) -> bool {
        self.reasoning == ReasoningSyntax::Harmony
    }

    /// Whether it can be told how much to think.
    pub fn takes_effort(self) -> bool {
        self.takes_effort
    }
}
