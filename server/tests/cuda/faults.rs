//! GPUs that fail, and machines without.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::assert_refused;
use crate::machine::{Server, Setup, is_real, model};

pub(crate) fn ask(server: &Server) -> (u16, Value) {
    let body = json!({"model": "base", "prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0});
    server.post("/v1/completions", &body)
}

/// It ends with one line that contains all of `parts`.
pub(crate) fn refused(setup: Setup, parts: &[&str]) {
    assert_refused(setup.output(), parts);
}

#[test]
fn too_little_memory_is_told_at_the_start() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    let gpu = || Setup::with_gpu(dir.path(), &["--device", "cuda"]);
    // While weights are loaded, and while the cache is made.
    refused(
        gpu().faults("fail_alloc above_bytes=100000"),
        &["GPU refused", "bytes of memory"],
    );
    refused(
        gpu().faults("fail_alloc above_bytes=2000000"),
        &["GPU refused", "bytes of memory"],
    );
    refused(gpu().env("SIMCUDA_MEMORY_MIB", "1"), &["free"]);
}

#[test]
fn a_failed_launch_fails_its_step_only() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    let server = Setup::with_gpu(dir.path(), &["--device", "cuda"]).start();
    fail_their_step_only(
        server,
        [
            "fail_launch kernel=norm_rows nth=3 error=701",
            "fail_launch kernel=* nth=150 error=701",
        ],
    );
}

/// Each of these launches that fail is an error of the request, and the next one is answered as
/// before.
pub(crate) fn fail_their_step_only(server: Server, faults: [&str; 2]) {
    let (status, expected) = ask(&server);
    assert_eq!(status, 200, "{expected}");
    for fault in faults {
        server.inject(fault);
        let (status, answer) = ask(&server);
        assert_eq!(status, 500, "{answer}");
        server.inject("");
        let (status, found) = ask(&server);
        assert_eq!(status, 200, "{found}");
        assert_eq!(found["choices"], expected["choices"]);
    }
    let log = server.end();
    assert!(log.contains("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_lost_device_stops_the_engine_and_probes_say_why() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    let server = Setup::with_gpu(dir.path(), &[]).start();
    server.inject("fail_launch kernel=rope_write_kv_bf16 nth=2 error=719 late=1");
    for path in ["/health", "/health/live"] {
        assert_eq!(server.get(path).0, 200);
    }
    let (status, answer) = ask(&server);
    assert_eq!(status, 500, "{answer}");
    // What the driver says of the fault, for whoever restarts servers.
    for path in ["/health", "/health/live", "/health/ready"] {
        let (status, told) = server.get(path);
        assert_eq!(
            (status, &told["status"]),
            (503, &json!("stopped")),
            "{told}"
        );
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.contains("CUDA_ERROR_LAUNCH_FAILED"), "{reason}");
    }
    let (status, answer) = ask(&server);
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("restarted")
    );
    let log = server.end();
    assert!(log.contains("must be started again"), "{log}");
}

#[test]
fn without_a_driver_the_cpu_computes_and_says_so() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    let server = Setup::without_gpu(dir.path(), &[]).start();
    for part in ["runs on   CPU", "no GPU", "driver"] {
        assert!(server.banner.contains(part), "{}", server.banner);
    }
    drop(server);
    let server = Setup::with_gpu(dir.path(), &["--device", "cpu"]).start();
    assert!(server.banner.contains("runs on   CPU"), "{}", server.banner);
    assert_eq!(server.trace(), "");
}

#[test]
fn a_gpu_that_is_not_there_is_refused_by_its_number() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    refused(
        Setup::without_gpu(dir.path(), &["--device", "cuda"]),
        &["--device cuda:0", "no NVIDIA driver"],
    );
    refused(
        Setup::with_gpu(dir.path(), &["--device", "cuda:3"]),
        &["--device cuda:3", "no CUDA device 3"],
    );
}

#[test]
fn the_binary_links_no_cuda() {
    let told = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_understudy"))
        .output()
        .unwrap();
    let libraries = String::from_utf8(told.stdout).unwrap();
    assert!(libraries.contains("libc.so"), "{libraries}");
    for name in ["cuda", "cublas", "nvrtc", "nccl", "nvidia"] {
        assert!(!libraries.contains(name), "{libraries}");
    }
}
