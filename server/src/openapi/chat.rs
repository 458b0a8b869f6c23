//! The bodies of chats, of completions and of embeddings.

use schemars::JsonSchema;

use super::messages::{Content, Message};
use super::shared::{
    CacheHints, Drawing, Effort, Grammars, Hints, Metadata, Model, Object, PlainName, Served,
    Streamed, Verbosity,
};
use super::tools::{Tool, ToolChoice};
use crate::openai::REFUSED_IN_CHATS;

/// `POST /v1/chat/completions`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = REFUSED_IN_CHATS))]
pub(super) struct ChatBody {
    #[schemars(flatten)]
    model: Model,
    #[schemars(length(min = 1))]
    messages: Vec<Message>,
    #[schemars(flatten)]
    drawing: Drawing,
    /// Choices of one answer.
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    #[schemars(flatten)]
    streamed: Streamed,
    /// Most tokens of the answer; default: the rest of the context.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    max_completion_tokens: Option<u32>,
    /// The older name of `max_completion_tokens`; not both.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    max_tokens: Option<u32>,
    logprobs: Option<bool>,
    /// Only with `logprobs`.
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u32>,
    response_format: Option<ResponseFormat>,
    #[schemars(length(min = 1, max = 128))]
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    reasoning_effort: Option<Effort>,
    /// Only `text`.
    modalities: Option<Vec<Modality>>,
    /// Checked, and without effect.
    prediction: Option<Prediction>,
    store: Option<bool>,
    /// Only with `store`.
    metadata: Option<Metadata>,
    /// Without effect.
    verbosity: Option<Verbosity>,
    #[schemars(flatten)]
    served: Served,
    #[schemars(flatten)]
    hints: Hints,
    #[schemars(flatten)]
    cache_hints: CacheHints,
    #[schemars(flatten)]
    grammars: Grammars,
    #[schemars(flatten)]
    template: TemplateOptions,
}

/// How a chat template is applied.
#[derive(JsonSchema)]
pub(super) struct TemplateOptions {
    /// Extension: default true.
    add_generation_prompt: Option<bool>,
    /// Extension: the answer goes on where the assistant's last message ends.
    continue_final_message: Option<bool>,
    /// Extension: variables of the chat template.
    chat_template_kwargs: Option<Object>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Modality {
    Text,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Prediction {
    Content { content: Content },
}

/// What an answer looks like.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct NamedSchema {
    name: PlainName,
    description: Option<String>,
    schema: Option<Object>,
    /// The schema is enforced either way.
    strict: Option<bool>,
}

/// `POST /v1/completions`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = ["suffix"]))]
pub(super) struct CompletionBody {
    #[schemars(flatten)]
    model: Model,
    prompt: Prompts,
    #[schemars(flatten)]
    drawing: Drawing,
    /// Choices of each prompt.
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    #[schemars(flatten)]
    streamed: Streamed,
    /// Default 16; 0 only with `echo`.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    max_tokens: Option<u32>,
    /// Candidates of each prompt, of which the `n` best are returned.
    #[schemars(range(min = 0, max = 20))]
    best_of: Option<u32>,
    /// The prompt is repeated before the answer.
    echo: Option<bool>,
    #[schemars(range(min = 0, max = 5))]
    logprobs: Option<u32>,
    #[schemars(flatten)]
    served: Served,
    #[schemars(flatten)]
    hints: Hints,
}

/// Texts, or token ids of the model.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Prompts {
    Text(String),
    Texts(#[schemars(length(min = 1, max = 2048))] Vec<String>),
    Tokens(#[schemars(length(min = 1))] Vec<TokenId>),
    AllTokens(#[schemars(length(min = 1, max = 2048))] Vec<TokenIds>),
}

/// Token ids of the model.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct TokenIds(#[schemars(length(min = 1))] Vec<TokenId>);

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct TokenId(#[schemars(range(min = 0, max = 4_294_967_295_i64))] u32);

/// `POST /v1/embeddings`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EmbeddingBody {
    /// An encoder, or a model served with `--embeddings`.
    model: String,
    input: Prompts,
    /// Default `float`.
    encoding_format: Option<VectorFormat>,
    /// Fewer values, of matryoshka models.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    dimensions: Option<u32>,
    #[schemars(flatten)]
    hints: Hints,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum VectorFormat {
    Float,
    Base64,
}
