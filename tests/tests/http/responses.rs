//! The Responses API: answers, events in order, what is stored, and what follows what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::errors::check;
use crate::server::{Answer, Options, Server, request};

pub(crate) fn server() -> Server {
    Server::start(Options::default())
}

/// Says what it is told to, with tools to call and a template that knows thoughts.
fn speaker(says: &'static str) -> Server {
    Server::start(Options {
        says: Some(says),
        template: concat!(
            "{# </think> enable_thinking tools <tool_call> #}",
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.reasoning_content }}",
            "{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}",
            "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
        ),
        max_model_len: 1000,
        ..Options::default()
    })
}

pub(crate) fn weather() -> Value {
    json!([{"type": "function", "name": "get_weather", "parameters": {"type": "object",
        "properties": {"unit": {"enum": ["C", "F"]}}, "required": ["unit"],
        "additionalProperties": false}}])
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

/// Folds events as clients do, and holds that they fit together.
fn folded(events: &[Value]) -> Value {
    let mut output: Vec<Value> = Vec::new();
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], i, "{event}");
        let index = event["output_index"]
            .as_u64()
            .map(|i| usize::try_from(i).unwrap());
        let kind = event["type"].as_str().unwrap();
        if let (Some(index), Some(id)) = (index, event.get("item_id")) {
            assert_eq!(output[index]["id"], *id, "{event}");
        }
        let text = |item: &Value| {
            item["content"][0]["text"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        match kind {
            "response.output_item.added" => {
                assert_eq!(index, Some(output.len()));
                assert_eq!(event["item"]["status"], "in_progress");
                output.push(event["item"].clone());
            }
            "response.content_part.added" => {
                let item = output.last_mut().unwrap();
                assert_eq!(item["content"], json!([]));
                item["content"] = json!([event["part"]]);
            }
            "response.output_text.delta" | "response.reasoning_text.delta" => {
                let item = &mut output[index.unwrap()];
                let so_far = text(item);
                item["content"][0]["text"] = json!(so_far + event["delta"].as_str().unwrap());
            }
            "response.output_text.done" | "response.reasoning_text.done" => {
                assert_eq!(text(&output[index.unwrap()]), event["text"]);
            }
            "response.content_part.done" => {
                output[index.unwrap()]["content"][0] = event["part"].clone();
            }
            "response.function_call_arguments.delta" => {
                let item = &mut output[index.unwrap()];
                let so_far = item["arguments"].as_str().unwrap();
                item["arguments"] = json!(format!("{so_far}{}", event["delta"].as_str().unwrap()));
            }
            "response.function_call_arguments.done" => {
                assert_eq!(output[index.unwrap()]["arguments"], event["arguments"]);
                assert_eq!(output[index.unwrap()]["name"], event["name"]);
            }
            "response.output_item.done" => {
                let item = &mut output[index.unwrap()];
                item["status"] = event["item"]["status"].clone();
                assert_eq!(*item, event["item"]);
            }
            _ => assert!(event["response"].is_object(), "{event}"),
        }
    }
    assert_eq!(events.last().unwrap()["response"]["output"], json!(output));
    json!(output)
}

/// Items without what is drawn anew for each request.
fn without_ids(mut output: Value) -> Value {
    for item in output.as_array_mut().unwrap() {
        for name in ["id", "call_id"] {
            item.as_object_mut().unwrap().shift_remove(name);
        }
    }
    output
}

#[tokio::test]
async fn a_whole_response_has_every_field() {
    let server = server();
    let answer = server
        .respond(
            json!({"metadata": {"a": "b"}, "temperature": 0.5, "user": "me",
            "instructions": "Be brief.", "safety_identifier": "s", "truncation": "auto"}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    let expected = json!({
        "object": "response", "status": "completed", "background": false, "error": null,
        "incomplete_details": null, "model": "org/mini:v1", "service_tier": "default",
        "store": true, "conversation": null, "instructions": "Be brief.",
        "max_output_tokens": null, "max_tool_calls": null, "metadata": {"a": "b"},
        "previous_response_id": null, "prompt_cache_key": null, "safety_identifier": "s",
        "temperature": 0.5, "tool_choice": "auto", "top_p": 1.0, "truncation": "auto",
        "user": "me", "tools": [], "parallel_tool_calls": true, "top_logprobs": 0,
        "reasoning": {"effort": null, "summary": null}, "text": {"format": {"type": "text"}},
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(body[name], *value, "{name}");
    }
    assert_eq!(
        body.as_object().unwrap().len(),
        expected.as_object().unwrap().len() + 5
    );
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert!(body["completed_at"].as_u64().unwrap() >= body["created_at"].as_u64().unwrap());
    assert_eq!(
        without_ids(body["output"].clone()),
        json!([{"type": "message", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}]}])
    );
    let usage = &body["usage"];
    let total = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    let read = server
        .get(&format!("/v1/responses/{}", body["id"].as_str().unwrap()))
        .await;
    assert_eq!(read.json(), body);
}

#[tokio::test]
async fn events_come_in_order_and_fold_to_the_whole() {
    let server = server();
    let more = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = server.respond(more.clone()).await.json();
    let mut streamed = more;
    streamed["stream"] = json!(true);
    let events = server.respond(streamed).await.named_events();
    let output = folded(&events);
    assert_eq!(without_ids(output), without_ids(whole["output"].clone()));
    let n_deltas = events.len() - 8;
    let kinds = kinds(&events);
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert!(
        n_deltas > 0
            && kinds[4..4 + n_deltas]
                .iter()
                .all(|kind| *kind == "response.output_text.delta")
    );
    assert_eq!(
        kinds[4 + n_deltas..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    let logprobs = whole["output"][0]["content"][0]["logprobs"]
        .as_array()
        .unwrap();
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let id = events[0]["response"]["id"].as_str().unwrap();
    let read = server.get(&format!("/v1/responses/{id}")).await.json();
    assert_eq!(read, events.last().unwrap()["response"]);
    let again = server.get(&format!("/v1/responses/{id}?stream=true")).await;
    check(
        &again,
        400,
        Some("stream"),
        None,
        "'background' and 'stream'",
    );
}

#[tokio::test]
async fn thoughts_texts_and_calls_are_items_of_their_own() {
    let server = speaker(
        "<think>Which one?</think>I look.<tool_call>{\"name\": \"get_weather\", \"arguments\": \
         {\"unit\": \"C\"}}</tool_call><tool_call>{\"name\": \"get_weather\", \"arguments\": {}}\
         </tool_call>",
    );
    let ask = json!({"tools": weather(), "max_output_tokens": 400});
    let whole = server.respond(ask.clone()).await.json();
    let mut ask = ask;
    ask["stream"] = json!(true);
    let events = server.respond(ask).await.named_events();
    assert_eq!(
        without_ids(folded(&events)),
        without_ids(whole["output"].clone())
    );
    assert_eq!(
        without_ids(whole["output"].clone()),
        json!([
            {"type": "reasoning", "summary": [], "status": "completed",
             "content": [{"type": "reasoning_text", "text": "Which one?"}]},
            {"type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "name": "get_weather", "arguments": "{\"unit\": \"C\"}",
             "status": "completed"},
            {"type": "function_call", "name": "get_weather", "arguments": "{}",
             "status": "completed"}])
    );
    assert!(
        whole["usage"]["output_tokens_details"]["reasoning_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );
    assert_eq!(whole["tools"][0]["strict"], false);
    // All of it, sent back as it came, with the results.
    let mut input = vec![json!({"role": "user", "content": "Hi"})];
    input.extend(whole["output"].as_array().unwrap().clone());
    for item in &whole["output"].as_array().unwrap()[2..] {
        input.push(
            json!({"type": "function_call_output", "call_id": item["call_id"],
            "output": [{"type": "input_text", "text": "12"}]}),
        );
    }
    let next = server
        .respond(json!({"input": input, "tools": weather()}))
        .await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.text);
    let input = json!([{"type": "function_call_output", "call_id": "call_x", "output": "12"}]);
    let orphan = server.respond(json!({"input": input})).await;
    check(
        &orphan,
        400,
        Some("input"),
        None,
        "No tool call found for function call output",
    );
}

#[tokio::test]
async fn a_response_cut_by_its_length_is_incomplete() {
    let server = Server::start(Options {
        says: None,
        ..Options::default()
    });
    let ask = json!({"max_output_tokens": 16, "ignore_eos": true});
    let whole = server.respond(ask.clone()).await.json();
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(
        whole["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(whole["output"][0]["status"], "incomplete");
    let mut ask = ask;
    ask["stream"] = json!(true);
    let events = server.respond(ask).await.named_events();
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
    folded(&events);
}

#[tokio::test]
async fn a_failed_response_ends_in_a_failed_event() {
    let server = Server::start(Options {
        fault: Some("Hello there"),
        ..Options::default()
    });
    let events = server.respond(json!({"stream": true})).await.named_events();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
    let whole = server.respond(json!({})).await;
    check(&whole, 500, None, None, "error while processing");
}

pub(crate) fn n_input(body: &Value) -> u64 {
    body["usage"]["input_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn responses_follow_each_other() {
    let server = server();
    let first = server
        .respond(json!({"instructions": "Sing."}))
        .await
        .json();
    let id = first["id"].as_str().unwrap();
    let next = server
        .respond(json!({"previous_response_id": id, "input": "And then?"}))
        .await
        .json();
    assert_eq!(next["previous_response_id"], id);
    let by_hand = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "And then?"}]);
    let whole = server.respond(json!({"input": by_hand})).await.json();
    assert_eq!(
        n_input(&next),
        n_input(&whole),
        "instructions are not carried on"
    );
    let third = server
        .respond(json!({"previous_response_id": next["id"], "input": "x"}))
        .await
        .json();
    assert!(n_input(&third) > n_input(&next) + 2);
    // By reference, as some SDKs go on.
    let reference = json!({"type": "item_reference", "id": first["output"][0]["id"]});
    let referring = json!([{"role": "user", "content": "Hi"}, reference,
        {"role": "user", "content": "And then?"}]);
    let referring = server.respond(json!({"input": referring})).await.json();
    assert_eq!(n_input(&referring), n_input(&whole));
    let unknown = json!({"previous_response_id": "resp_none"});
    let code = Some("previous_response_not_found");
    check(
        &server.respond(unknown).await,
        400,
        Some("previous_response_id"),
        code,
        "'resp_none'",
    );
    let unknown = json!({"input": [{"type": "item_reference", "id": "msg_none"}]});
    let code = Some("item_not_found");
    check(
        &server.respond(unknown).await,
        400,
        Some("input[0].id"),
        code,
        "'msg_none'",
    );
}

#[tokio::test]
async fn what_is_not_stored_is_gone() {
    let server = server();
    let body = server.respond(json!({"store": false})).await.json();
    let path = format!("/v1/responses/{}", body["id"].as_str().unwrap());
    check(&server.get(&path).await, 404, None, None, "not found");
    let body = server.respond(json!({})).await.json();
    let path = format!("/v1/responses/{}", body["id"].as_str().unwrap());
    let deleted = server.delete(&path).await.json();
    assert_eq!(
        deleted,
        json!({"id": body["id"], "object": "response", "deleted": true})
    );
    for answer in [server.get(&path).await, server.delete(&path).await] {
        check(&answer, 404, None, None, "not found");
    }
}

#[tokio::test]
async fn one_key_never_sees_anothers_objects() {
    let server = Server::start(Options {
        keys: vec!["one", "two"],
        ..Options::default()
    });
    let call = async |key: &str, method: Method, path: &str, body: Value| -> Answer {
        let mut request = request(method, path, body.to_string());
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        server.call(request).await
    };
    let body = json!({"model": "alias", "input": "Hi"});
    let made = call("one", Method::POST, "/v1/responses", body)
        .await
        .json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(call("one", Method::GET, &path, json!({})).await.status, 200);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(call("two", method, &path, json!({})).await.status, 404);
    }
    for (field, id) in [
        ("previous_response_id", made["id"].clone()),
        (
            "input",
            json!([{"type": "item_reference", "id": made["output"][0]["id"]}]),
        ),
    ] {
        let body = json!({"model": "alias", "input": "Hi", field: id});
        assert_eq!(
            call("two", Method::POST, "/v1/responses", body.clone())
                .await
                .status,
            400
        );
        assert_eq!(
            call("one", Method::POST, "/v1/responses", body)
                .await
                .status,
            200
        );
    }
    assert_eq!(
        call("one", Method::GET, &path, json!({})).await.json(),
        made
    );
}

#[tokio::test]
async fn input_items_come_by_pages() {
    let server = server();
    let input: Vec<Value> = (0..5)
        .map(|i| json!({"role": "user", "content": format!("{i}")}))
        .collect();
    let body = server.respond(json!({"input": input})).await.json();
    let path = format!("/v1/responses/{}/input_items", body["id"].as_str().unwrap());
    let mut texts = Vec::new();
    let mut query = "?limit=2&order=asc".to_owned();
    loop {
        let page = server.get(&format!("{path}{query}")).await.json();
        assert_eq!(page["object"], "list");
        let items = page["data"].as_array().unwrap();
        assert_eq!(page["first_id"], items[0]["id"]);
        texts.extend(items.iter().map(|item| item["content"][0]["text"].clone()));
        if page["has_more"] == false {
            break;
        }
        query = format!(
            "?limit=2&order=asc&after={}",
            page["last_id"].as_str().unwrap()
        );
    }
    assert_eq!(json!(texts), json!(["0", "1", "2", "3", "4"]));
    let newest = server.get(&format!("{path}?limit=1")).await.json();
    assert_eq!(newest["data"][0]["content"][0]["text"], "4");
    for (query, param) in [
        ("limit=0", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
    ] {
        let answer = server.get(&format!("{path}?{query}")).await;
        check(&answer, 400, Some(param), Some("invalid_value"), "");
    }
    let answer = server.get(&format!("{path}?foo=1")).await;
    check(&answer, 400, Some("foo"), Some("unknown_parameter"), "");
}

#[tokio::test]
async fn responses_in_the_background() {
    let server = server();
    server.gate.close();
    let queued = server
        .respond(json!({"background": true, "stream": false}))
        .await
        .json();
    assert_eq!(queued["status"], "queued");
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.json()["status"], "queued");
    let early = server
        .respond(json!({"previous_response_id": queued["id"]}))
        .await;
    let code = Some("previous_response_not_complete");
    check(&early, 400, Some("previous_response_id"), code, "'queued'");
    server.gate.open();
    let done = loop {
        let body = server.get(&path).await.json();
        if body["status"] == "completed" {
            break body;
        }
        assert!(
            body["status"] == "queued" || body["status"] == "in_progress",
            "{body}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    assert_eq!(done["output"][0]["content"][0]["text"], "Hello there");
    let cancelled = server
        .post(&format!("{path}/cancel"), &json!({}))
        .await
        .json();
    assert_eq!(cancelled, done, "what has ended stays what it is");
    server.wait_until_idle().await;
}

#[tokio::test]
async fn a_background_response_is_cancelled_and_frees_its_memory() {
    let server = server();
    server.gate.close();
    let queued = server.respond(json!({"background": true})).await.json();
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    let cancelled = server
        .post(&format!("{path}/cancel"), &json!({}))
        .await
        .json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(server.get(&path).await.json(), cancelled);
    server.gate.open();
    server.wait_until_idle().await;
    let whole = server.respond(json!({})).await.json();
    let path = format!("/v1/responses/{}/cancel", whole["id"].as_str().unwrap());
    let answer = server.post(&path, &json!({})).await;
    check(
        &answer,
        400,
        None,
        None,
        "Cannot cancel a synchronous response.",
    );
}

#[tokio::test]
async fn background_streams_are_resumed_where_they_were_left() {
    let server = server();
    let ask = json!({"background": true, "stream": true});
    let events = server.respond(ask).await.named_events();
    folded(&events);
    let kinds = kinds(&events);
    assert_eq!(
        kinds[..3],
        [
            "response.created",
            "response.queued",
            "response.in_progress"
        ]
    );
    let id = events[0]["response"]["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}?stream=true");
    assert_eq!(server.get(&path).await.named_events(), events);
    for after in [0, 4, events.len() - 2] {
        let rest = server.get(&format!("{path}&starting_after={after}")).await;
        assert_eq!(rest.named_events(), events[after + 1..]);
    }
    let answer = server
        .get(&format!("/v1/responses/{id}?starting_after=1"))
        .await;
    check(&answer, 400, Some("starting_after"), None, "'stream'");
}
