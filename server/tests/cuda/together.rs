//! One model on several GPUs. The rule is that of other back ends: sums of parts round otherwise than
//! the sum of all, so answers are compared as those of two devices ([`crate::answers`]); with
//! `--dtype float32` all tokens are the same.

use std::path::Path;

use serde_json::json;

use crate::answers::{Bound, ask, compare, compare_exactly};
use crate::faults::{self, refused};
use crate::machine::{Setup, fixtures, is_real, model};

/// A model in so many parts, on a machine with as many GPUs.
fn parts(n: usize, model: &Path, args: &[&str]) -> Setup {
    let n = &*n.to_string();
    let args = [args, &["--tensor-parallel-size", n]].concat();
    Setup::with_gpu(model, &args).env("SIMCUDA_DEVICES", n)
}

fn two(model: &Path, args: &[&str]) -> Setup {
    parts(2, model, args)
}

/// Greedy and drawn answers of one GPU and of several, of a model and its adapters.
fn check(n: usize, (name, adapters): (&str, &[&str]), args: &[&str], arch: &str) {
    if is_real() {
        return;
    }
    let dir = model(name);
    let named = adapters.iter().flat_map(|name| {
        let path = fixtures().join("adapters").join(name);
        ["--adapter".to_owned(), format!("{name}={}", path.display())]
    });
    let named: Vec<String> = named.collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let args = &[args, &named].concat();
    let one = Setup::with_gpu(dir.path(), args).env("SIMCUDA_ARCH", arch);
    let all = parts(n, dir.path(), args).env("SIMCUDA_ARCH", arch);
    let (one, all) = (one.start(), all.start());
    let told = format!("{n} parts through NCCL");
    assert!(all.banner.contains(&told), "{}", all.banner);
    let models = &[&["base"][..], adapters].concat();
    let greedy = json!({"temperature": 0});
    let (expected, found) = (ask(&one, models, &greedy), ask(&all, models, &greedy));
    if args.contains(&"float32") {
        compare_exactly(&expected, &found);
        let drawn = json!({"temperature": 1.0, "top_p": 0.9, "seed": 11});
        compare_exactly(&ask(&one, models, &drawn), &ask(&all, models, &drawn));
    } else {
        let bound = Bound {
            logprob: 0.35,
            mean: 0.06,
            beyond: 0.0,
        };
        compare(&expected, &found, bound);
    }
    let trace = all.trace();
    // Beside the one that tries NCCL out.
    let n_gathers = trace.matches(&format!("gather of {n} times")).count();
    assert!(n_gathers > 20, "{n_gathers} gathers");
    for device in 0..n {
        let is_own = |line: &&str| line.starts_with(&format!("{device} "));
        assert!(trace.lines().any(|line| is_own(&line)), "{device} is idle");
    }
    all.end_clean();
}

#[test]
fn llama() {
    let adapters = &["llama31-gqa-plain", "llama31-gqa-plain2"];
    check(2, ("llama31-gqa", adapters), &["--dtype", "bfloat16"], "90");
}

#[test]
fn llama_in_f32() {
    let adapters = &["llama31-gqa-lora-embed", "llama31-gqa-save-embed"];
    check(2, ("llama31-gqa", adapters), &["--dtype", "float32"], "80");
}

#[test]
fn qwen2_in_f32() {
    let adapters = &["qwen2-bias", "qwen2-save-norm"];
    check(2, ("qwen2", adapters), &["--dtype", "float32"], "90");
}

#[test]
fn qwen2_quantized() {
    let adapters = &["qwen2-plain"];
    check(2, ("qwen2", adapters), &["--quantize", "q8_0"], "89");
}

#[test]
fn gemma3() {
    check(2, ("gemma3", &["gemma3-rslora"]), &[], "90");
}

#[test]
fn mixtral_in_f32() {
    check(2, ("mixtral", &[]), &["--dtype", "float32"], "90");
}

/// Sinks, and experts with biases.
#[test]
fn gpt_oss_in_f32() {
    check(2, ("gpt-oss", &[]), &["--dtype", "float32"], "90");
}

/// Fused projections, biases, blocks beside each other; and sums of more than two.
#[test]
fn neox_on_four_in_f32() {
    check(4, ("gpt-neox", &[]), &["--dtype", "float32"], "80");
}

/// An adapter that needs whole rows of what is cut.
#[test]
fn an_adapter_that_cannot_be_cut_is_refused_by_name() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    let path = fixtures().join("adapters/llama31-gqa-dora");
    let adapter = format!("dora={}", path.display());
    refused(
        two(dir.path(), &["--adapter", &adapter]),
        &["use_dora", "cut by inputs"],
    );
}

/// Whichever device a kernel cannot be started on, its step fails and no other, and the device that
/// did its part does not wait for ever.
#[test]
fn a_failed_launch_on_one_of_two_fails_its_step_only() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    faults::fail_their_step_only(
        two(dir.path(), &[]).start(),
        [
            "fail_launch kernel=norm_rows nth=3 error=701 device=1",
            "fail_launch kernel=norm_rows nth=6 error=701 device=0",
        ],
    );
}

/// A device that is lost ends the waiting of the other.
#[test]
fn a_lost_device_of_two_is_told_and_requests_are_refused() {
    if is_real() {
        return;
    }
    let dir = model("qwen2");
    for fault in [
        "fail_launch kernel=rope_write_kv_bf16 nth=2 error=719 late=1 device=1",
        "fail_launch kernel=nccl_all_gather nth=3 error=719 device=0",
    ] {
        let server = two(dir.path(), &[]).start();
        server.inject(fault);
        for expected in [500, 503, 503] {
            let (status, answer) = faults::ask(&server);
            assert_eq!(status, expected, "{answer}");
        }
        let log = server.end();
        assert!(log.contains("must be started again"), "{log}");
    }
}

#[test]
fn too_little_memory_on_the_second_is_told_at_the_start() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    for bytes in ["100000", "1000000"] {
        let fault = format!("fail_alloc above_bytes={bytes} device=1");
        refused(
            two(dir.path(), &[]).faults(&fault),
            &["GPU refused", "bytes of memory"],
        );
    }
}

/// Memory that a step wants and the second device has not fails the step.
#[test]
fn too_little_memory_on_the_second_in_a_step_fails_the_step() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    let server = two(dir.path(), &[]).start();
    server.inject("fail_alloc above_bytes=1 device=1");
    let (status, answer) = faults::ask(&server);
    assert_eq!(status, 500, "{answer}");
    server.inject("");
    let (status, answer) = faults::ask(&server);
    assert_eq!(status, 200, "{answer}");
    assert!(server.end().contains("GPU refused"));
}

#[test]
fn what_cannot_be_cut_is_refused_by_name() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    refused(
        parts(3, dir.path(), &[]),
        &["cannot be cut into 3 parts", "heads"],
    );
    refused(
        Setup::with_gpu(dir.path(), &["--tensor-parallel-size", "2"]),
        &["--tensor-parallel-size 2", "no CUDA device 1", "has 1"],
    );
    refused(
        two(dir.path(), &["--device", "cpu"]),
        &["--tensor-parallel-size 2", "--device is cpu"],
    );
}

#[test]
fn without_nccl_it_is_named() {
    if is_real() {
        return;
    }
    let dir = model("llama31-gqa");
    let without = two(dir.path(), &[]).without_nccl();
    refused(without, &["libnccl.so.2", "--tensor-parallel-size 2"]);
}
