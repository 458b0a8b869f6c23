//! Two steps in flight: the next is planned and started while one runs, with tokens that have not
//! been to the host. Answers are those of one step at a time, bit for bit.

use serde_json::{Value, json};

use crate::answers::{Drawn, ask};
use crate::machine::{Server, Setup, fixtures, is_real, model};

/// Answers to everything that is sampled on the device, and to what needs the host in between.
fn answers(server: &Server, models: &[&str]) -> Vec<Vec<Vec<Drawn>>> {
    let kinds = [
        json!({"temperature": 0}),
        json!({"temperature": 1.0, "top_p": 0.9, "seed": 11}),
        json!({"temperature": 0.9, "top_k": 40, "min_p": 0.001, "seed": 5, "logit_bias": {"7": 3}}),
        json!({"temperature": 0.9, "seed": 5, "presence_penalty": 0.4}),
    ];
    kinds.iter().map(|kind| ask(server, models, kind)).collect()
}

/// A figure of the server's.
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.text("/metrics");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn check(name: &str, adapters: &[&str], args: &[&str], overlaps: Option<bool>) {
    let dir = model(name);
    let named = adapters.iter().flat_map(|name| {
        let path = fixtures().join("adapters").join(name);
        ["--adapter".to_owned(), format!("{name}={}", path.display())]
    });
    let named: Vec<String> = named.collect();
    let mut args = args.to_vec();
    args.extend(named.iter().map(String::as_str));
    let models = &[&["base"][..], adapters].concat();
    let two = Setup::with_gpu(dir.path(), &args).start();
    let one = Setup::with_gpu(
        dir.path(),
        &[&args[..], &["--no-async-scheduling"]].concat(),
    )
    .start();
    assert_eq!(answers(&two, models), answers(&one, models));
    let n_ahead = [&two, &one].map(|s| metric(s, "understudy_steps_ahead_total"));
    let is_right = overlaps.is_none_or(|overlaps| (n_ahead[0] > 5.0) == overlaps);
    assert!(is_right, "{n_ahead:?}");
    assert_eq!(n_ahead[1], 0.0);
    two.end_clean();
    one.end_clean();
}

#[test]
fn llama() {
    let adapters = &["llama31-gqa-plain", "llama31-gqa-dora"];
    check("llama31-gqa", adapters, &[], Some(true));
}

/// While a sequence of such an adapter draws, there is one step at a time.
#[test]
fn llama_with_an_adapter_that_changes_tokens() {
    let adapters = &["llama31-gqa-lora-embed"];
    check("llama31-gqa", adapters, &["--dtype", "float32"], None);
}

#[test]
fn qwen2_without_graphs() {
    let args = &["--quantize", "q8_0", "--enforce-eager"];
    check("qwen2", &["qwen2-plain"], args, Some(true));
}

#[test]
fn gemma3() {
    check("gemma3", &["gemma3-rslora"], &[], Some(true));
}

/// Choices of experts are read by the host in every layer.
#[test]
fn mixtral_has_one_step_at_a_time() {
    check("mixtral", &[], &[], Some(false));
}

fn body(prompt: [u32; 3], n: u32) -> Value {
    json!({
        "model": "base", "prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": true
    })
}

/// Whichever of two steps cannot be started, the rows of that one fail, the other's answers are
/// right, and the server goes on.
#[test]
fn a_failed_launch_with_two_steps_in_flight() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    let server = Setup::with_gpu(dir.path(), &["--enforce-eager"]).start();
    let (status, expected) = server.post("/v1/completions", &body([5, 6, 7], 12));
    assert_eq!(status, 200, "{expected}");
    for nth in [40, 97, 150] {
        server.inject(&format!("fail_launch kernel=* nth={nth} error=701"));
        let (status, answer) = server.post("/v1/completions", &body([5, 6, 7], 12));
        assert_eq!(status, 500, "{answer}");
        server.inject("");
        let (status, found) = server.post("/v1/completions", &body([5, 6, 7], 12));
        assert_eq!(status, 200, "{found}");
        assert_eq!(found["choices"], expected["choices"]);
    }
    assert!(metric(&server, "understudy_steps_ahead_total") > 5.0);
    let log = server.end();
    assert!(!log.contains("panicked"), "{log}");
}

/// A fault inside a kernel ends both steps, and the engine.
#[test]
fn a_device_that_is_lost_with_two_steps_in_flight() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    let server = Setup::with_gpu(dir.path(), &[]).start();
    server.inject("fail_launch kernel=rope_write_kv_bf16 nth=9 error=719 late=1");
    for expected in [500, 503, 503] {
        let (status, answer) = server.post("/v1/completions", &body([5, 6, 7], 12));
        assert_eq!(status, expected, "{answer}");
    }
    let log = server.end();
    assert!(log.contains("must be started again"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Memory that a step wants and cannot have fails that step.
#[test]
fn too_little_memory_in_a_step() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    let server = Setup::with_gpu(dir.path(), &[]).start();
    let ask = |n| server.post("/v1/completions", &body([5, 6, 7], n));
    server.inject("fail_alloc above_bytes=1");
    assert_eq!(ask(12).0, 500);
    server.inject("");
    let (status, answer) = ask(12);
    assert_eq!(status, 200, "{answer}");
    assert!(server.end().contains("GPU refused"));
}
