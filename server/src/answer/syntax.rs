//! How families of models write tool calls.

use std::str::FromStr;

/// One way of writing calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolSyntax {
    /// `<tool_call>{"name", "arguments"}</tool_call>`: Hermes, Qwen and many fine-tunes.
    Hermes,
    /// `{"name", "parameters"}` as the whole answer, or after `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[TOOL_CALLS][{"name", "arguments"}]` or `[TOOL_CALLS]name[ARGS]{...}`: Mistral.
    Mistral,
    /// `<|tool_call|>[{"name", "arguments"}]`: Granite.
    Granite,
    /// `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`: DeepSeek.
    DeepSeek,
    /// `{"name", "arguments"}`, bare or fenced as a block of JSON: whatever else there is.
    Json,
}

const NAMES: [(&str, ToolSyntax); 6] = [
    ("hermes", ToolSyntax::Hermes),
    ("llama3", ToolSyntax::Llama3),
    ("mistral", ToolSyntax::Mistral),
    ("granite", ToolSyntax::Granite),
    ("deepseek", ToolSyntax::DeepSeek),
    ("json", ToolSyntax::Json),
];

pub(super) const DEEPSEEK_CALL: &str = "<｜tool▁call▁begin｜>";
pub(super) const DEEPSEEK_SEPARATOR: &str = "<｜tool▁sep｜>";

impl ToolSyntax {
    /// The syntax that a chat template teaches its model. `None`: the template knows no tools.
    pub fn of_template(template: &str) -> Option<Self> {
        const TELLS: [(&str, ToolSyntax); 5] = [
            ("tool▁call▁begin", ToolSyntax::DeepSeek),
            ("[TOOL_CALLS]", ToolSyntax::Mistral),
            ("<|tool_call|>", ToolSyntax::Granite),
            ("<tool_call>", ToolSyntax::Hermes),
            ("<|python_tag|>", ToolSyntax::Llama3),
        ];
        if !template.contains("tools") {
            return None;
        }
        let tell = TELLS.iter().find(|(text, _)| template.contains(text));
        if let Some((_, syntax)) = tell {
            return Some(*syntax);
        }
        // Llama 3.2 has no mark of its own.
        let is_llama = template.contains("<|start_header_id|>");
        Some(if is_llama { Self::Llama3 } else { Self::Json })
    }

    /// What opens calls in the middle of text.
    pub(super) fn opening(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>"],
            Self::Llama3 => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::Granite => &["<|tool_call|>", "<tool_call>"],
            Self::DeepSeek => &["<｜tool▁calls▁begin｜>", DEEPSEEK_CALL],
            Self::Json => &["```json"],
        }
    }

    /// What may stand between calls, and whether text goes on after it.
    pub(super) fn between(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Hermes => &[("</tool_call>", true)],
            Self::Llama3 => &[(";", false), (",", false)],
            Self::Mistral => &[
                ("[TOOL_CALLS]", false),
                ("[", false),
                (",", false),
                ("]", true),
            ],
            Self::Granite => &[("[", false), (",", false), ("]", true)],
            Self::DeepSeek => &[
                ("<｜tool▁calls▁begin｜>", false),
                ("<｜tool▁call▁end｜>", false),
                ("```", false),
                ("<｜tool▁calls▁end｜>", true),
            ],
            Self::Json => &[("[", false), (",", false), ("]", false), ("```", true)],
        }
    }

    /// Whether an answer may begin with a call without any mark. Such a call must name a tool.
    pub(super) fn is_bare(self) -> bool {
        matches!(self, Self::Llama3 | Self::Json)
    }

    /// Marks that a tokenizer may have as control tokens, which text would leave out.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Llama3 => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Granite => &["<|tool_call|>", "<tool_call>"],
            Self::DeepSeek => &[
                "<｜tool▁calls▁begin｜>",
                DEEPSEEK_CALL,
                DEEPSEEK_SEPARATOR,
                "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>",
            ],
            Self::Json => &[],
        }
    }
}

impl FromStr for ToolSyntax {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, syntax)| *syntax).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}
