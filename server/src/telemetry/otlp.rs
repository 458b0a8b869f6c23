//! Spans as OTLP writes them in JSON, with the semantic conventions for HTTP and generative models.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>,
//! <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::timeline::Phases;
use super::trace::TraceContext;

/// Kinds of spans.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// A request that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) context: TraceContext,
    pub(crate) request_id: String,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) status: u16,
    pub(crate) tenant: String,
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    /// From the beginning to the submission to the engine.
    pub(crate) until_submitted: Duration,
    pub(crate) phases: Phases,
}

/// What the conventions call the operation of a route.
fn operation(route: &str) -> Option<&'static str> {
    match route {
        "/v1/chat/completions" | "/v1/responses" | "/v1/messages" => Some("chat"),
        "/v1/completions" => Some("text_completion"),
        "/v1/embeddings" => Some("embeddings"),
        _ => None,
    }
}

/// The body of one export.
pub(super) fn body(calls: &[Call]) -> Value {
    let spans: Vec<Value> = calls.iter().flat_map(spans).collect();
    let resource = [
        text("service.name", "understudy"),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": "understudy", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans,
        }],
    }]})
}

/// The request, and its phases as children.
fn spans(call: &Call) -> Vec<Value> {
    let phases = &call.phases;
    let operation = operation(&call.route).filter(|_| phases.submitted.is_some());
    let mut attributes = vec![
        text("http.request.method", &call.method),
        text("http.route", &call.route),
        number("http.response.status_code", u64::from(call.status)),
        text("understudy.request.id", &call.request_id),
        text("understudy.tenant", &call.tenant),
    ];
    let mut name = format!("{} {}", call.method, call.route);
    if let Some(operation) = operation {
        let model = phases.model.as_deref().unwrap_or_default();
        name = format!("{operation} {model}");
        attributes.extend([
            text("gen_ai.operation.name", operation),
            text("gen_ai.provider.name", "understudy"),
            text("gen_ai.request.model", model),
            text("gen_ai.response.model", model),
            number("gen_ai.usage.input_tokens", phases.n_prompt),
            number("gen_ai.usage.output_tokens", phases.n_generated),
            number("gen_ai.usage.cache_read.input_tokens", phases.n_cached),
        ]);
        let adapter = phases.adapter.as_deref();
        attributes.extend(adapter.map(|name| text("understudy.adapter", name)));
    }
    let mut status = json!({});
    if call.status >= 500 {
        status = json!({"code": ERROR});
        attributes.push(text("error.type", &call.status.to_string()));
    } else if let Some(code) = &phases.failure {
        status = json!({"code": ERROR});
        let kind = if code.is_empty() {
            "_OTHER"
        } else {
            code.as_str()
        };
        attributes.push(text("error.type", kind));
    }
    let mut own = span(call, call.context.span, call.context.parent, &name);
    own["kind"] = json!(SERVER);
    times(&mut own, call.began, call.took);
    own["attributes"] = json!(attributes);
    own["status"] = status;
    let mut spans = vec![own];
    if operation.is_some() {
        spans.extend(children(call));
    }
    spans
}

fn children(call: &Call) -> Vec<Value> {
    let phases = &call.phases;
    let mut began = call.began + call.until_submitted;
    let all = [
        ("queue", phases.queue),
        ("prefill", phases.prefill),
        ("decode", phases.decode),
    ];
    let children = all.into_iter().zip(1..).map(|((name, took), i)| {
        // Ids that differ from each other and from their parent's.
        let id = call.context.span.wrapping_add(i).max(1);
        let mut child = span(call, id, Some(call.context.span), name);
        child["kind"] = json!(INTERNAL);
        times(&mut child, began, took);
        began += took;
        child
    });
    children.collect()
}

fn span(call: &Call, id: u64, parent: Option<u64>, name: &str) -> Value {
    json!({
        "traceId": format!("{:032x}", call.context.trace),
        "spanId": format!("{id:016x}"),
        "parentSpanId": parent.map_or(String::new(), |parent| format!("{parent:016x}")),
        "name": name,
    })
}

fn times(span: &mut Value, began: SystemTime, took: Duration) {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    };
    span["startTimeUnixNano"] = json!(nanos(began));
    span["endTimeUnixNano"] = json!(nanos(began + took));
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// 64-bit numbers are strings in protobuf's JSON.
fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_span_with_its_phases() {
        let ms = Duration::from_millis;
        let call = Call {
            context: TraceContext {
                trace: 0xabc,
                parent: Some(0x12),
                span: 0x34,
                is_sampled: true,
            },
            request_id: "req_1".to_owned(),
            method: "POST".to_owned(),
            route: "/v1/chat/completions".to_owned(),
            status: 200,
            tenant: "team".to_owned(),
            began: UNIX_EPOCH + Duration::from_secs(5),
            took: ms(100),
            until_submitted: ms(10),
            phases: Phases {
                model: Some("m".to_owned()),
                submitted: Some(tokio::time::Instant::now()),
                queue: ms(20),
                prefill: ms(30),
                decode: ms(40),
                n_prompt: 7,
                n_generated: 3,
                ..Phases::default()
            },
        };
        let body = body(std::slice::from_ref(&call));
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let names: Vec<_> = spans
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["chat m", "queue", "prefill", "decode"]);
        assert_eq!(spans[0]["traceId"], format!("{:032x}", 0xabc));
        assert_eq!(spans[0]["parentSpanId"], "0000000000000012");
        assert_eq!(spans[2]["parentSpanId"], spans[0]["spanId"]);
        assert_eq!(spans[0]["startTimeUnixNano"], "5000000000");
        assert_eq!(spans[2]["startTimeUnixNano"], "5030000000");
        assert_eq!(spans[2]["endTimeUnixNano"], "5060000000");
        let attributes = spans[0]["attributes"].as_array().unwrap();
        let input = json!({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}});
        assert!(attributes.contains(&input), "{attributes:?}");
        let failed = Call {
            route: "/v1/models".to_owned(),
            status: 500,
            ..call
        };
        let body = super::body(&[failed]);
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(spans.as_array().unwrap().len(), 1);
        assert_eq!(spans[0]["name"], "POST /v1/models");
        assert_eq!(spans[0]["status"]["code"], 2);
    }
}
