//! How families of models write tool calls.

use std::str::FromStr;

use super::harmony::HARMONY_MARKS;
use super::xml::XML_CALL;

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
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`:
    /// Qwen3-Coder and later Qwen models, Nemotron 3.
    QwenXml,
    /// `[name(key=value), ...]` as the whole answer: Llama 3.2 and 4.
    Pythonic,
    /// Calls as Python in a fence of `tool_code`: Gemma 2 and 3.
    ToolCode,
    /// `<start_function_call>call:name{key:value}<end_function_call>`: FunctionGemma; Gemma 4 with
    /// its own marks.
    Gemma,
    /// Messages to `functions.name` on the channel `commentary`: gpt-oss.
    Harmony,
    /// `{"name", "arguments"}`, bare or fenced as a block of JSON: whatever else there is.
    Json,
}

/// By the names that `--tool-call-parser` takes.
pub(super) const NAMES: [(&str, ToolSyntax); 11] = [
    ("hermes", ToolSyntax::Hermes),
    ("llama3", ToolSyntax::Llama3),
    ("mistral", ToolSyntax::Mistral),
    ("granite", ToolSyntax::Granite),
    ("deepseek", ToolSyntax::DeepSeek),
    ("qwen3-coder", ToolSyntax::QwenXml),
    ("pythonic", ToolSyntax::Pythonic),
    ("tool-code", ToolSyntax::ToolCode),
    ("gemma", ToolSyntax::Gemma),
    ("harmony", ToolSyntax::Harmony),
    ("json", ToolSyntax::Json),
];

pub(super) const DEEPSEEK_CALL: &str = "<｜tool▁call▁begin｜>";
pub(super) const DEEPSEEK_SEPARATOR: &str = "<｜tool▁sep｜>";

impl ToolSyntax {
    /// The syntax that a chat template teaches its model. `None`: the template knows no tools.
    pub fn of_template(template: &str) -> Option<Self> {
        const TELLS: [(&str, ToolSyntax); 11] = [
            ("<|channel|>", ToolSyntax::Harmony),
            ("<start_function_call>", ToolSyntax::Gemma),
            ("<|tool_call>call:", ToolSyntax::Gemma),
            ("tool_code", ToolSyntax::ToolCode),
            ("tool▁call▁begin", ToolSyntax::DeepSeek),
            ("[TOOL_CALLS]", ToolSyntax::Mistral),
            ("<|tool_call|>", ToolSyntax::Granite),
            ("<function=", ToolSyntax::QwenXml),
            ("<tool_call>", ToolSyntax::Hermes),
            ("<|python_start|>", ToolSyntax::Pythonic),
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
            Self::QwenXml => &["<tool_call>", XML_CALL],
            Self::Pythonic => &["<|python_start|>", "<|python_tag|>"],
            Self::ToolCode => &["```tool_code"],
            Self::Gemma => &["<start_function_call>", "<|tool_call>"],
            // It has a parser of its own.
            Self::Harmony => &[],
            Self::Json => &["```json"],
        }
    }

    /// What may stand between calls, and whether text goes on after it.
    pub(super) fn between(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Hermes | Self::QwenXml => &[("</tool_call>", true)],
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
            Self::Pythonic => &[
                ("[", false),
                (",", false),
                ("]", false),
                ("<|python_end|>", true),
            ],
            Self::ToolCode => &[
                ("[", false),
                (",", false),
                ("]", false),
                (";", false),
                ("```", true),
            ],
            Self::Gemma => &[("<end_function_call>", true), ("<tool_call|>", true)],
            Self::Harmony => &[],
            Self::Json => &[("[", false), (",", false), ("]", false), ("```", true)],
        }
    }

    /// What an answer may begin with that is a call without any mark.
    pub(super) fn bare(self) -> &'static [char] {
        match self {
            Self::Llama3 => &['{'],
            Self::Json => &['{', '['],
            Self::Pythonic => &['['],
            _ => &[],
        }
    }

    /// Whether what looks like a call is one only if it names a tool.
    pub(super) fn must_be_known(self) -> bool {
        !self.bare().is_empty() || self == Self::ToolCode
    }

    /// Marks that a tokenizer may have as control tokens, which text would leave out.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenXml => &["<tool_call>", "</tool_call>"],
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
            Self::Pythonic => &["<|python_start|>", "<|python_end|>", "<|python_tag|>"],
            Self::Gemma => &[
                "<start_function_call>",
                "<end_function_call>",
                "<escape>",
                "<|tool_call>",
                "<tool_call|>",
                "<|\"|>",
            ],
            Self::Harmony => &HARMONY_MARKS,
            Self::ToolCode | Self::Json => &[],
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
