//! The generator against a server whose every byte is known.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod stub;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use load::{Bench, BenchArgs, ErrorKind, Measured};
use serde_json::{Value, json};
use stub::{Asked, Gate, Stub, completion, lengths, plain, stream};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

/// Runs `understudy bench` with these flags.
fn bench(stub: &Stub, flags: &[&str]) -> Vec<Measured> {
    let line = ["bench", "--no-progress", "--base-url", &stub.url];
    let line = line.iter().chain(flags).copied();
    let args = Line::try_parse_from(line).unwrap().bench;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { Bench::new(args).await.unwrap().run().await })
}

const COMPLETIONS: [&str; 8] = [
    "--endpoint",
    "completions",
    "--model",
    "m",
    "--prompt-tokens",
    "5..9",
    "--output-tokens",
    "3",
];

fn completions(stub: &Stub, flags: &[&str]) -> Measured {
    let flags = [&COMPLETIONS[..], flags].concat();
    bench(stub, &flags).remove(0)
}

fn kinds(measured: &Measured) -> Vec<Option<ErrorKind>> {
    let failures = measured
        .outcomes
        .iter()
        .map(|outcome| outcome.failure.clone());
    failures
        .map(|failure| failure.map(|failure| failure.kind))
        .collect()
}

fn as_asked(asked: &Asked) -> Vec<u8> {
    let (n_prompt, n_output) = lengths(asked);
    stream(&completion(n_prompt, n_output))
}

#[test]
fn counts_come_out_right() {
    let stub = Stub::start(as_asked);
    let measured = completions(
        &stub,
        &["--concurrency", "3", "--requests", "20", "--warmup", "4"],
    );
    let summary = measured.summary;
    assert_eq!(
        (summary.n_requests, summary.n_failed, summary.errors),
        (20, 0, vec![])
    );
    assert_eq!(summary.n_output_tokens, 60);
    assert_eq!(
        (summary.ttft_ms.n, summary.gap_ms.n, summary.tpot_ms.n),
        (20, 40, 20)
    );
    let asked = stub.asked();
    assert_eq!(asked.len(), 24);
    assert!(asked.iter().all(|asked| asked.body["ignore_eos"] == true
        && asked.body["stream_options"]["include_usage"] == true));
    let n_sent: usize = asked.iter().map(|asked| lengths(asked).0).sum();
    assert!(
        summary.n_prompt_tokens < n_sent as u64,
        "warm-up does not count"
    );
}

#[test]
fn the_same_seed_sends_the_same_bodies() {
    let bodies = |seed: &str| {
        let stub = Stub::start(as_asked);
        completions(
            &stub,
            &["--concurrency", "1", "--requests", "10", "--seed", seed],
        );
        stub.asked()
            .into_iter()
            .map(|asked| asked.body)
            .collect::<Vec<Value>>()
    };
    let first = bodies("5");
    assert_eq!(first, bodies("5"));
    assert_ne!(first, bodies("6"));
}

/// The server answers nobody until all have asked: a generator that waits for answers before it
/// sends more would wait for ever. And whoever was to be sent first has waited longest, though
/// the server is quick once it answers.
#[test]
fn a_stall_is_everybodys_whom_it_makes_wait() {
    const N: usize = 30;
    let gate = Arc::new(Gate::default());
    let stub = Stub::start(move |asked| {
        gate.wait_for(N);
        as_asked(asked)
    });
    let measured = completions(&stub, &["--rate", "100", "--requests", "30"]);
    assert_eq!(
        measured.summary.n_failed, 0,
        "{:?}",
        measured.summary.errors
    );
    let last = measured.outcomes[N - 1].intended;
    assert!(last > 0.1, "the load is long enough to say something");
    for outcome in &measured.outcomes {
        let (ttft, least) = (outcome.ttft().unwrap(), last - outcome.intended);
        assert!(
            ttft >= least - 1e-4,
            "{ttft} s, but the stall was {least} s"
        );
    }
}

/// A closed loop counts from when its client was free, so lateness of its own cannot hide.
#[test]
fn clients_ask_one_thing_at_a_time() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let stub = Stub::start(move |asked| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(2));
        now.fetch_sub(1, Ordering::SeqCst);
        as_asked(asked)
    });
    let measured = completions(&stub, &["--concurrency", "4", "--requests", "40"]);
    assert_eq!(measured.outcomes.len(), 40);
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert!(
        measured
            .outcomes
            .iter()
            .all(|o| o.intended <= o.sent && o.sent <= o.ended)
    );
}

#[test]
fn wrong_usage_is_found() {
    type Lie = fn(usize, usize) -> Vec<String>;
    let lies: [(&str, Lie); 5] = [
        ("a prompt counted short", |p, o| completion(p - 1, o)),
        ("an answer counted long", |p, o| {
            let mut events = completion(p, o);
            events[o] = completion(p, o + 1).remove(o + 1);
            events
        }),
        ("a total that is no sum", |p, o| {
            completion(p, o)
                .iter()
                .map(|e| e.replace("\"total_tokens\":", "\"total_tokens\":9"))
                .collect()
        }),
        ("no usage", |p, o| {
            let mut events = completion(p, o);
            events.remove(o);
            events
        }),
        ("an answer cut short", |p, o| completion(p, o - 1)),
    ];
    for (what, lie) in lies {
        let stub = Stub::start(move |asked| {
            let (n_prompt, n_output) = lengths(asked);
            stream(&lie(n_prompt, n_output))
        });
        let measured = completions(&stub, &["--requests", "2"]);
        assert_eq!(
            kinds(&measured),
            vec![Some(ErrorKind::WrongUsage); 2],
            "{what}"
        );
        assert_eq!(
            measured.summary.n_output_tokens, 0,
            "failed requests bring no tokens"
        );
    }
}

#[test]
fn errors_are_told_apart() {
    let error = json!({"error": {"message": "busy", "code": "rate_limit_exceeded"}});
    let whole = |asked: &Asked| {
        let (n_prompt, n_output) = lengths(asked);
        completion(n_prompt, n_output)
    };
    let refused = Stub::start(move |_| plain("429 Too Many Requests", &error));
    let code = Some("rate_limit_exceeded".to_owned());
    let expected = vec![Some(ErrorKind::Status(429, code)); 3];
    assert_eq!(
        kinds(&completions(&refused, &["--requests", "3"])),
        expected
    );

    let one = |stub: Stub| {
        kinds(&completions(&stub, &["--requests", "1"]))
            .remove(0)
            .unwrap()
    };
    let failing = Stub::start(move |asked| {
        let mut events = whole(asked);
        events[1] = json!({"error": {"message": "no"}}).to_string();
        stream(&events)
    });
    assert_eq!(one(failing), ErrorKind::StreamError);
    let ending = Stub::start(move |asked| {
        let mut events = whole(asked);
        events.pop();
        stream(&events)
    });
    assert_eq!(one(ending), ErrorKind::Truncated);
    let cut = Stub::start(move |asked| {
        let mut bytes = stream(&whole(asked));
        bytes.truncate(bytes.len() / 2);
        // What follows is no length of a chunk.
        bytes.extend(b"\r\nzz\r\n");
        bytes
    });
    assert_eq!(one(cut), ErrorKind::Disconnected);
    assert_eq!(one(Stub::start(|_| Vec::new())), ErrorKind::Disconnected);
    assert_eq!(
        one(Stub::start(|_| stream(&["{".to_owned()]))),
        ErrorKind::Malformed
    );
    let nobody = Stub {
        url: "http://127.0.0.1:1/v1".to_owned(),
        ..Stub::start(|_| Vec::new())
    };
    assert_eq!(one(nobody), ErrorKind::Connect);
    let gate = Gate::default();
    let silent = Stub::start(move |_| {
        gate.wait_for(2);
        Vec::new()
    });
    let measured = completions(&silent, &["--requests", "1", "--timeout", "0.05"]);
    assert_eq!(kinds(&measured), [Some(ErrorKind::Timeout)]);
}

/// Chat: words are counted first, turns carry all before them, keys and models are sent.
#[test]
fn conversations_carry_what_was_said() {
    let stub = Stub::start(|asked: &Asked| {
        if asked.path == "/v1/models" {
            return plain("200 OK", &json!({"data": [{"id": "listed"}]}));
        }
        let messages = asked.body["messages"].as_array().unwrap();
        let words = |message: &Value| message["content"].as_str().unwrap().split(' ').count();
        let n_prompt = 7 + 2 * messages.iter().map(words).sum::<usize>();
        let n_output = asked.body["max_tokens"].as_u64().unwrap();
        let usage = json!({"prompt_tokens": n_prompt, "completion_tokens": n_output,
            "total_tokens": n_prompt as u64 + n_output});
        if asked.body["stream"] != true {
            let choice = json!({"message": {"content": "x y"}, "finish_reason": "length"});
            return plain("200 OK", &json!({"choices": [choice], "usage": usage}));
        }
        let delta = |text| json!({"choices": [{"delta": {"content": text}}]}).to_string();
        let end = json!({"choices": [{"delta": {}, "finish_reason": "length"}]}).to_string();
        let usage = json!({"choices": [], "usage": usage}).to_string();
        stream(&[
            delta(""),
            delta("one"),
            delta(" two"),
            end,
            usage,
            "[DONE]".to_owned(),
        ])
    });
    let flags = "--api-key k --requests 6 --turns 3 --prompt-tokens 27 --output-tokens 2 \
                 --shared-prefix 100 --concurrency 2 --structured 0.5";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let measured = bench(&stub, &flags).remove(0);
    assert_eq!(
        measured.summary.n_failed, 0,
        "{:?}",
        measured.summary.errors
    );
    assert_eq!(
        (measured.outcomes.len(), measured.summary.gap_ms.n),
        (18, 18)
    );
    // 100 and 27 tokens are 47 and 14 words of two tokens, in a template of 7.
    assert_eq!(measured.outcomes[0].usage.n_prompt, 7 + 2 * (47 + 14));
    let asked: Vec<Asked> = stub.asked().into_iter().skip(3).collect();
    assert!(
        asked
            .iter()
            .all(|asked| asked.headers["authorization"] == "Bearer k")
    );
    assert!(asked.iter().all(|asked| asked.body["model"] == "listed"));
    let last = asked
        .iter()
        .find(|asked| asked.body["messages"].as_array().unwrap().len() == 5);
    let messages = last.unwrap().body["messages"].clone();
    assert_eq!(
        (&messages[1]["role"], &messages[1]["content"]),
        (&json!("assistant"), &json!("one two"))
    );
    let n_structured = asked
        .iter()
        .filter(|asked| asked.body["response_format"].is_object())
        .count();
    assert!((1..18).contains(&n_structured));
    assert!(
        asked
            .iter()
            .all(|a| a.body["response_format"].is_object() != a.body["ignore_eos"].is_boolean())
    );
}

#[test]
fn embeddings_and_whole_answers_are_measured_too() {
    let stub = Stub::start(|asked: &Asked| {
        let n = asked.body["input"].as_array().unwrap().len();
        let usage = json!({"prompt_tokens": n, "total_tokens": n});
        plain(
            "200 OK",
            &json!({"data": [{"embedding": [1.0]}], "usage": usage}),
        )
    });
    let flags = "--endpoint embeddings --prompt-as tokens --model e --prompt-tokens 9 --requests 4";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let summary = bench(&stub, &flags).remove(0).summary;
    assert_eq!(
        (summary.n_failed, summary.n_prompt_tokens),
        (0, 36),
        "{:?}",
        summary.errors
    );
    assert_eq!((summary.ttft_ms.n, summary.e2e_ms.n), (0, 4));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let wrong = |flags: &str| {
        let line = ["bench", "--model", "m"]
            .into_iter()
            .chain(flags.split_whitespace());
        let Ok(line) = Line::try_parse_from(line) else {
            return String::new();
        };
        load::run(line.bench).unwrap_err().to_string()
    };
    for flags in [
        "--rate 1 --concurrency 2",
        "--trace x --rate 1",
        "--prompt-tokens 0",
    ] {
        assert_eq!(wrong(flags), "", "{flags}");
    }
    assert!(wrong("--endpoint completions --turns 2").contains("--turns"));
    assert!(wrong("--endpoint embeddings --structured 0.5").contains("--structured"));
    assert!(wrong("--prompt-as tokens").contains("--prompt-as"));
    assert!(wrong("--rate 0").contains("--rate"));
    assert!(wrong("--rate 1 --burstiness 0.5").contains("--gaps"));
    assert!(wrong("--endpoint completions --trace nowhere.csv").contains("nowhere.csv"));
}

/// All that is written, from a sweep of two loads.
#[test]
fn results_are_written() {
    let stub = Stub::start(as_asked);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (json, html, lines) = (path("a.json"), path("a.html"), path("a.jsonl"));
    let line = [
        "bench",
        "--no-progress",
        "--base-url",
        &stub.url,
        "--concurrency",
        "1,2",
        "--requests",
        "5",
        "--json",
        &json,
        "--html",
        &html,
        "--requests-out",
        &lines,
        "--slo",
        "ttft:60000",
    ];
    let args = Line::try_parse_from(line.iter().copied().chain(COMPLETIONS))
        .unwrap()
        .bench;
    let table = load::run(args).unwrap();
    assert!(
        table.contains("closed loop of 2") && table.contains("100.0% of all met"),
        "{table}"
    );
    let told: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(told["loads"][1]["n_clients"], 2);
    assert_eq!(told["loads"][0]["n_output_tokens"], 15);
    let prompts: Vec<Value> = stub
        .asked()
        .iter()
        .map(|asked| asked.body["prompt"].clone())
        .collect();
    assert!(
        (0..5).all(|i| !prompts[5..].contains(&prompts[i])),
        "each load has its own"
    );
    let page = std::fs::read_to_string(html).unwrap();
    assert_eq!(page.matches("<svg").count(), 5);
    assert_eq!(std::fs::read_to_string(lines).unwrap().lines().count(), 10);
}
