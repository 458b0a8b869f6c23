//! All operations of the API.

use schemars::generate::SchemaGenerator;
use serde_json::{Value, json};

use super::answers::{
    AnthropicError, Conversation, Deleted, FileBody, FilePage, Health, InputTokens, Page,
    ServerState, Stored, StoredItem,
};
use super::anthropic::{CountBody, Counted, MessageBody};
use super::chat::{ChatBody, CompletionBody, EmbeddingBody};
use super::decisions::{
    DecisionBody, DetokenizeBody, LoadAdapterBody, TokenizeText, UnloadAdapterBody,
};
use super::operation::Operation;
use super::responses::{ConversationBody, ItemsBody, MetadataBody, ResponseBody};
use super::shared::Object;
use crate::anthropic::{MessageEvent, MessageObject};
use crate::openai::{
    ChatChunk, ChatCompletion, Completion, Decision, EmbeddingList, FileObject, ModelList,
    ModelObject, PromptText, ResponseEvent, ResponseObject, TokenList,
};

/// All of them, in the order in which they are told.
pub(super) fn operations(s: &mut SchemaGenerator) -> Vec<Operation> {
    let mut all = generating(s);
    all.extend(reading(s));
    all.extend(responses(s));
    all.extend(conversations(s));
    all.extend(stored_chats(s));
    all.extend(files(s));
    all.extend(models(s));
    all.extend(operating(s));
    all
}

fn generating(s: &mut SchemaGenerator) -> Vec<Operation> {
    let post = |path, summary| Operation::new("post", path, summary).generates();
    vec![
        post("/v1/chat/completions", "Answer a conversation")
            .takes::<ChatBody>(s)
            .answers::<ChatCompletion>(s)
            .streams::<ChatChunk<'_>>(s),
        post("/v1/completions", "Continue prompts")
            .takes::<CompletionBody>(s)
            .answers::<Completion<'_>>(s)
            .streams::<Completion<'_>>(s),
        post("/v1/responses", "Answer items")
            .takes::<ResponseBody>(s)
            .answers::<ResponseObject>(s)
            .streams::<ResponseEvent<'_>>(s),
        post(
            "/v1/responses/input_tokens",
            "Count the tokens of what would be answered",
        )
        .takes::<ResponseBody>(s)
        .answers::<InputTokens>(s),
        post(
            "/v1/messages",
            "Answer a conversation in Anthropic's dialect",
        )
        .takes::<MessageBody>(s)
        .answers::<MessageObject>(s)
        .streams::<MessageEvent<'_>>(s)
        .fails_as::<AnthropicError>(s),
        Operation::new(
            "post",
            "/v1/messages/count_tokens",
            "Count the tokens of what would be answered",
        )
        .takes::<CountBody>(s)
        .answers::<Counted>(s)
        .fails_as::<AnthropicError>(s),
        post("/v1/decisions", "Answer questions by probabilities")
            .takes::<DecisionBody>(s)
            .answers::<Decision>(s),
        post("/v1/embeddings", "Vectors of texts")
            .takes::<EmbeddingBody>(s)
            .answers::<EmbeddingList>(s),
    ]
}

fn reading(s: &mut SchemaGenerator) -> Vec<Operation> {
    let mut all = Vec::new();
    for path in ["/tokenize", "/v1/tokenize"] {
        let operation = Operation::new("post", path, "Tokens of a text or of a conversation");
        all.push(
            operation
                .takes_either::<TokenizeText, ChatBody>(s)
                .answers::<TokenList>(s),
        );
    }
    for path in ["/detokenize", "/v1/detokenize"] {
        let operation = Operation::new("post", path, "The text of tokens");
        all.push(
            operation
                .takes::<DetokenizeBody>(s)
                .answers::<PromptText>(s),
        );
    }
    for path in ["/apply-template", "/v1/apply-template"] {
        let operation = Operation::new("post", path, "A conversation as the model reads it");
        all.push(
            operation
                .takes_any_model::<ChatBody>(s)
                .answers::<PromptText>(s),
        );
    }
    all
}

fn responses(s: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |method, path, summary| Operation::new(method, path, summary);
    let flag = || json!({"type": "boolean"});
    let count = || json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    vec![
        at(
            "get",
            "/v1/responses/{id}",
            "A stored response, or its events again",
        )
        .query("stream", flag())
        .query("starting_after", count())
        .query("include_obfuscation", flag())
        .query("include", strings())
        .answers::<ResponseObject>(s)
        .streams::<ResponseEvent<'_>>(s),
        at("delete", "/v1/responses/{id}", "Forget a response").answers::<Deleted>(s),
        at(
            "post",
            "/v1/responses/{id}/cancel",
            "End a response in the background",
        )
        .answers::<ResponseObject>(s),
        at(
            "get",
            "/v1/responses/{id}/input_items",
            "What a response answers",
        )
        .listed()
        .query("include", strings())
        .answers::<Page>(s),
        at("post", "/v1/responses/compact", "Always refused").answers::<Stored>(s),
    ]
}

fn strings() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn conversations(s: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |method, path, summary| Operation::new(method, path, summary);
    let (one, items) = ("/v1/conversations/{id}", "/v1/conversations/{id}/items");
    let item = "/v1/conversations/{id}/items/{item}";
    vec![
        at("post", "/v1/conversations", "Begin a conversation")
            .may_take::<ConversationBody>(s)
            .answers::<Conversation>(s),
        at("get", one, "A conversation").answers::<Conversation>(s),
        at("post", one, "Replace its metadata")
            .takes::<MetadataBody>(s)
            .answers::<Conversation>(s),
        at("delete", one, "Forget a conversation").answers::<Deleted>(s),
        at("get", items, "Its items")
            .listed()
            .query("include", strings())
            .answers::<Page>(s),
        at("post", items, "Add items")
            .query("include", strings())
            .takes::<ItemsBody>(s)
            .answers::<Page>(s),
        at("get", item, "An item")
            .query("include", strings())
            .answers::<StoredItem>(s),
        at("delete", item, "Delete an item").answers::<Conversation>(s),
    ]
}

fn stored_chats(s: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |method, path, summary| Operation::new(method, path, summary);
    let one = "/v1/chat/completions/{id}";
    vec![
        at("get", "/v1/chat/completions", "Stored chats")
            .listed()
            .query("model", json!({"type": "string"}))
            .answers::<Page>(s),
        at("get", one, "A stored chat").answers::<Stored>(s),
        at("post", one, "Replace its metadata")
            .takes::<MetadataBody>(s)
            .answers::<Stored>(s),
        at("delete", one, "Forget a chat").answers::<Deleted>(s),
        at("get", "/v1/chat/completions/{id}/messages", "Its messages")
            .listed()
            .answers::<Page>(s),
    ]
}

fn files(s: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |method, path, summary| Operation::new(method, path, summary);
    let one = "/v1/files/{id}";
    vec![
        at("get", "/v1/files", "Uploaded files")
            .listed_to(10_000, 10_000)
            .query("purpose", json!({"type": "string"}))
            .answers::<FilePage>(s),
        at("post", "/v1/files", "Upload a file")
            .takes_form::<FileBody>(s)
            .answers::<FileObject>(s),
        at("get", one, "An uploaded file").answers::<FileObject>(s),
        at("delete", one, "Delete a file").answers::<Deleted>(s),
        at("get", "/v1/files/{id}/content", "Its bytes").answers_text("application/octet-stream"),
    ]
}

fn models(s: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |method, path, summary| Operation::new(method, path, summary);
    vec![
        at("get", "/v1/models", "Served names").answers::<ModelList>(s),
        at("get", "/v1/models/{id}", "A served name").answers::<ModelObject>(s),
        at(
            "post",
            "/v1/load_lora_adapter",
            "Load an adapter; for admins",
        )
        .takes::<LoadAdapterBody>(s)
        .answers_text("text/plain"),
        at(
            "post",
            "/v1/unload_lora_adapter",
            "Forget an adapter; for admins",
        )
        .takes::<UnloadAdapterBody>(s)
        .answers_text("text/plain"),
    ]
}

fn operating(s: &mut SchemaGenerator) -> Vec<Operation> {
    let get = |path, summary| Operation::new("get", path, summary);
    let mut all = Vec::new();
    for path in [
        "/health",
        "/health/ready",
        "/health/live",
        "/health/startup",
    ] {
        all.push(
            get(path, "A probe: 200 if all is well")
                .without_key()
                .answers::<Health>(s),
        );
    }
    all.push(get("/metrics", "Prometheus text").answers_text("text/plain"));
    all.push(get("/admin/state", "What the server is doing; for admins").answers::<ServerState>(s));
    all.push(
        get("/openapi.json", "This description")
            .without_key()
            .answers::<Object>(s),
    );
    all.push(
        get("/docs", "This description, to be read")
            .without_key()
            .answers_text("text/html"),
    );
    all
}
