//! Chat completions that are stored.

use serde_json::{Value, json};

use crate::errors::check;
use crate::server::{Options, Server};

#[tokio::test]
async fn stored_chats_are_there_as_they_were_answered() {
    let server = Server::start(Options::default());
    let whole = server
        .chat(json!({"store": true, "metadata": {"kind": "test"}, "n": 2}))
        .await
        .json();
    let path = format!("/v1/chat/completions/{}", whole["id"].as_str().unwrap());
    let mut stored = server.get(&path).await.json();
    assert_eq!(stored["metadata"], json!({"kind": "test"}));
    stored.as_object_mut().unwrap().shift_remove("metadata");
    assert_eq!(stored, whole);
    let messages = server.get(&format!("{path}/messages")).await.json();
    assert_eq!(messages["data"][0]["content"], "Hi");
    assert_eq!(messages["data"][0]["role"], "user");
    let changed = server
        .post(&path, &json!({"metadata": {"kind": "new"}}))
        .await
        .json();
    assert_eq!(changed["metadata"], json!({"kind": "new"}));
    let deleted = server.delete(&path).await.json();
    assert_eq!(
        deleted,
        json!({"object": "chat.completion.deleted", "id": whole["id"], "deleted": true})
    );
    for answer in [
        server.get(&path).await,
        server.delete(&path).await,
        server.post(&path, &json!({"metadata": {}})).await,
    ] {
        check(&answer, 404, None, None, "Chat completion with id");
    }
}

#[tokio::test]
async fn a_streamed_chat_is_stored_whole() {
    let server = Server::start(Options::default());
    let ask = json!({"store": true, "logprobs": true});
    let whole = server.chat(ask.clone()).await.json();
    let mut ask = ask;
    ask["stream"] = json!(true);
    let chunks = server.chat(ask).await.chunks();
    let id = chunks[0]["id"].as_str().unwrap();
    let stored = server
        .get(&format!("/v1/chat/completions/{id}"))
        .await
        .json();
    assert_eq!(stored["choices"], whole["choices"]);
    assert_eq!(stored["object"], "chat.completion");
}

#[tokio::test]
async fn stored_chats_are_listed_by_model_and_metadata() {
    let server = Server::start(Options::default());
    let mut ids: Vec<Value> = Vec::new();
    for (model, kind) in [
        ("alias", "a"),
        ("org/mini:v1", "a"),
        ("alias", "b"),
        ("alias", "a"),
    ] {
        let body = json!({"model": model, "store": true, "metadata": {"kind": kind}});
        ids.push(server.chat(body).await.json()["id"].clone());
    }
    server.chat(json!({})).await;
    let list = async |query: &str| {
        let page = server
            .get(&format!("/v1/chat/completions?{query}"))
            .await
            .json();
        let data = page["data"].as_array().unwrap();
        let found: Vec<Value> = data.iter().map(|chat| chat["id"].clone()).collect();
        (found, page["has_more"] == true)
    };
    assert_eq!(list("").await, (ids.clone(), false));
    assert_eq!(list("limit=3").await, (ids[..3].to_vec(), true));
    let after = format!("limit=3&after={}", ids[2].as_str().unwrap());
    assert_eq!(list(&after).await, (ids[3..].to_vec(), false));
    let newest = (vec![ids[3].clone(), ids[2].clone()], true);
    assert_eq!(list("order=desc&limit=2").await, newest);
    let wanted = (vec![ids[0].clone(), ids[3].clone()], false);
    assert_eq!(list("model=alias&metadata%5Bkind%5D=a").await, wanted);
    let answer = server.get("/v1/chat/completions?after=chatcmpl-none").await;
    check(&answer, 400, Some("after"), Some("invalid_value"), "");
}
