//! Conversations: items that responses go on from and add to.

use serde_json::{Value, json};

use crate::errors::check;
use crate::server::{Options, Server};

async fn texts(server: &Server, id: &str) -> Vec<String> {
    let path = format!("/v1/conversations/{id}/items?order=asc");
    let page = server.get(&path).await.json();
    let items = page["data"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["content"][0]["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn responses_go_on_and_add_to_it() {
    let server = Server::start(Options::default());
    let items = json!([{"role": "user", "content": "Good morning"}]);
    let made = server
        .post(
            "/v1/conversations",
            &json!({"metadata": {"a": "b"}, "items": items}),
        )
        .await
        .json();
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("conv_"));
    assert_eq!(made["object"], "conversation");
    let first = server.respond(json!({"conversation": id})).await.json();
    assert_eq!(first["conversation"], json!({"id": id}));
    let events = server
        .respond(json!({"conversation": {"id": id}, "input": "More", "stream": true}))
        .await
        .named_events();
    let second = &events.last().unwrap()["response"];
    assert_eq!(
        texts(&server, id).await,
        ["Good morning", "Hi", "Hello there", "More", "Hello there"]
    );
    let n_input = |body: &Value| body["usage"]["input_tokens"].as_u64().unwrap();
    assert!(n_input(second) > n_input(&first) + 5);
    // What was not stored was said all the same.
    server
        .respond(json!({"conversation": id, "input": "Off", "store": false}))
        .await;
    assert_eq!(texts(&server, id).await.len(), 7);
    let path = format!("/v1/conversations/{id}");
    assert_eq!(server.get(&path).await.json(), made);
    let changed = server
        .post(&path, &json!({"metadata": {"c": "d"}}))
        .await
        .json();
    assert_eq!(changed["metadata"], json!({"c": "d"}));
    let deleted = server.delete(&path).await.json();
    assert_eq!(
        deleted,
        json!({"id": id, "object": "conversation.deleted", "deleted": true})
    );
    check(
        &server.get(&path).await,
        404,
        None,
        None,
        "Conversation with id",
    );
    let gone = server.respond(json!({"conversation": id})).await;
    check(&gone, 404, None, None, "Conversation with id");
}

#[tokio::test]
async fn items_come_and_go() {
    let server = Server::start(Options::default());
    let made = server.post("/v1/conversations", &json!({})).await.json();
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{id}/items");
    let items: Vec<Value> = (0..3)
        .map(|i| json!({"type": "message", "role": "user", "content": format!("{i}")}))
        .collect();
    let added = server.post(&path, &json!({"items": items})).await.json();
    let added = added["data"].as_array().unwrap().clone();
    assert_eq!(added.len(), 3);
    let one = format!("{path}/{}", added[1]["id"].as_str().unwrap());
    assert_eq!(server.get(&one).await.json(), added[1]);
    assert_eq!(server.delete(&one).await.json(), made);
    check(&server.get(&one).await, 404, None, None, "Item with id");
    check(&server.delete(&one).await, 404, None, None, "Item with id");
    assert_eq!(texts(&server, id).await, ["0", "2"]);
    let too_many = vec![items[0].clone(); 21];
    let refused = server.post(&path, &json!({"items": too_many})).await;
    check(
        &refused,
        400,
        Some("items"),
        Some("array_above_max_length"),
        "",
    );
    check(
        &server.post(&path, &json!({})).await,
        400,
        Some("items"),
        Some("missing_required_parameter"),
        "",
    );
}
