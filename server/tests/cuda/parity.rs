//! The same answers as on the CPU: families, adapters, quantized weights, 8-bit caches.
//!
//! | family | formats |
//! |---|---|
//! | Llama | bf16, f32, Q4_0; Q2_K, Q3_K, Q4_K, Q5_K, Q6_K from GGUF |
//! | Qwen2 | bf16, Q8_0; Q4_K, Q6_K from GGUF |
//! | Gemma 3 | bf16, Q5_1 |
//! | Mixtral | bf16, f32, Q8_0 |

use std::path::Path;

use serde_json::json;

use crate::adapters::attention_only;
use crate::answers::{Bound, ask, compare, compare_exactly};
use crate::machine::{Setup, fixtures, is_real, model};
use crate::wide;

/// A model with adapters, on both back ends.
struct Case<'a> {
    model: &'a str,
    adapters: &'a [&'a str],
    args: &'a [&'a str],
}

impl Case<'_> {
    fn check(&self, arch: &str) {
        let dir = model(self.model);
        let own = tempfile::tempdir().unwrap();
        let mut args: Vec<String> = self.args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut models = vec!["base"];
        for name in self.adapters {
            let known = fixtures().join("adapters").join(name);
            let path = if known.exists() {
                known
            } else {
                attention_only("llama31-gqa-plain", own.path());
                own.path().to_owned()
            };
            args.extend(["--adapter".to_owned(), format!("{name}={}", path.display())]);
            models.push(name);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.compare(dir.path(), &args, &models, arch);
    }

    /// Activations are rounded to 16 bits for the tensor cores, and on the CPU elsewhere, which these
    /// models, small and random as they are, feel more than large ones; most of all where a rounding
    /// sends a token to another expert.
    fn bound(&self) -> Bound {
        if self.args.contains(&"--kv-type") {
            // Keys and values that differ in their last bits may be another code, of which an fp8
            // has eight between powers of two; attention itself is in f32.
            return Bound {
                logprob: 0.1,
                mean: 0.01,
                beyond: 0.0,
            };
        }
        let has_experts = self.model == "mixtral";
        Bound {
            logprob: 0.35,
            mean: if has_experts { 0.07 } else { 0.06 },
            beyond: if has_experts { 0.05 } else { 0.0 },
        }
    }

    fn compare(&self, dir: &Path, args: &[&str], models: &[&str], arch: &str) {
        let cpu = Setup::without_gpu(dir, &[args, &["--device", "cpu"]].concat()).start();
        assert!(cpu.banner.contains("runs on   CPU"), "{}", cpu.banner);
        let gpu = Setup::with_gpu(dir, args).env("SIMCUDA_ARCH", arch).start();
        assert!(gpu.banner.contains("runs on   CUDA"), "{}", gpu.banner);
        let greedy = json!({"temperature": 0});
        let drawn = json!({"temperature": 1.0, "top_p": 0.9, "seed": 11});
        // Everything that is sampled on the device.
        let limited = json!({
            "temperature": 0.9, "top_k": 40, "min_p": 0.001, "seed": 5, "presence_penalty": 0.4,
            "frequency_penalty": 0.2, "repetition_penalty": 1.2, "logit_bias": {"7": 3, "8": -100},
        });
        if args.contains(&"float32") && !args.contains(&"--kv-type") {
            for sampling in [greedy, drawn, limited] {
                compare_exactly(&ask(&cpu, models, &sampling), &ask(&gpu, models, &sampling));
            }
        } else {
            let (expected, found) = (ask(&cpu, models, &greedy), ask(&gpu, models, &greedy));
            compare(&expected, &found, self.bound());
            if args.contains(&"bfloat16") && !is_real() {
                // Hopper multiplies by warp groups, one row as well as many.
                let is_hopper = gpu.trace().contains("linear_bf16_wgmma_small");
                assert_eq!(is_hopper, arch == "90");
            }
        }
        assert!(is_real() || gpu.trace().contains("sample_rows"));
        gpu.end_clean();
    }
}

#[test]
fn llama() {
    let adapters = &["llama31-gqa-plain", "llama31-gqa-plain2"];
    let args = &["--dtype", "bfloat16"];
    Case {
        model: "llama31-gqa",
        adapters,
        args,
    }
    .check("90");
}

#[test]
fn llama_in_f32_with_adapters_of_all_kinds() {
    let adapters = &[
        "llama31-gqa-dora",
        "llama31-gqa-lora-embed",
        "llama31-gqa-save-embed",
    ];
    let args = &["--dtype", "float32"];
    Case {
        model: "llama31-gqa",
        adapters,
        args,
    }
    .check("80");
}

#[test]
fn llama_quantized() {
    let adapters = &["llama31-gqa-rslora"];
    let args = &["--quantize", "q4_0"];
    Case {
        model: "llama31-gqa",
        adapters,
        args,
    }
    .check("89");
}

#[test]
fn qwen2() {
    let adapters = &["qwen2-plain", "qwen2-bias"];
    Case {
        model: "qwen2",
        adapters,
        args: &[],
    }
    .check("90");
}

#[test]
fn qwen2_quantized_in_f32() {
    let adapters = &["qwen2-save-norm", "qwen2-dora"];
    let args = &["--dtype", "float32", "--quantize", "q8_0"];
    Case {
        model: "qwen2",
        adapters,
        args,
    }
    .check("90");
}

#[test]
fn gemma3() {
    let adapters = &["gemma3-rslora", "gemma3-dora"];
    Case {
        model: "gemma3",
        adapters,
        args: &[],
    }
    .check("90");
}

#[test]
fn gemma3_quantized() {
    let args = &["--quantize", "q5_1"];
    let adapters = &["gemma3-plain"];
    Case {
        model: "gemma3",
        adapters,
        args,
    }
    .check("80");
}

#[test]
fn mixtral() {
    let adapters = &["attention"];
    Case {
        model: "mixtral",
        adapters,
        args: &[],
    }
    .check("90");
}

#[test]
fn mixtral_in_f32() {
    let args = &["--dtype", "float32"];
    let adapters = &["attention"];
    Case {
        model: "mixtral",
        adapters,
        args,
    }
    .check("90");
}

#[test]
fn mixtral_quantized() {
    let args = &["--quantize", "q8_0"];
    let adapters = &[];
    Case {
        model: "mixtral",
        adapters,
        args,
    }
    .check("90");
}

/// A GGUF file whose matrices are in a format with blocks of 256.
fn check_gguf(family: &str, format: &str, arch: &str) {
    let (_dir, file) = wide::gguf(family, format);
    let case = Case {
        model: family,
        adapters: &[],
        args: &[],
    };
    case.compare(&file, &[], &["base"], arch);
}

#[test]
fn llama_in_k_quants() {
    for format in ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"] {
        check_gguf("llama31-gqa", format, "90");
    }
}

#[test]
fn qwen2_in_k_quants() {
    for format in ["q4_k", "q6_k"] {
        check_gguf("qwen2", format, "80");
    }
}

/// What a grammar allows goes to the device with every step.
#[test]
fn grammars_in_f32() {
    let dir = model("llama31-gqa");
    let args = &["--dtype", "float32"];
    let cpu = Setup::without_gpu(dir.path(), &[&args[..], &["--device", "cpu"]].concat()).start();
    let gpu = Setup::with_gpu(dir.path(), args).start();
    for (seed, temperature) in [(1, 0.0), (2, 0.8), (3, 1.3)] {
        let body = json!({
            "model": "base", "messages": [{"role": "user", "content": "Name two of them."}],
            "max_completion_tokens": 24, "seed": seed, "temperature": temperature, "top_p": 0.95,
            "structured_outputs": {"regex": "[a-m]{2,5}( [n-z]{2,6}, [0-9]{3,8}){1,3}!"},
        });
        let contents = [&cpu, &gpu].map(|server| {
            let (status, answer) = server.post("/v1/chat/completions", &body);
            assert_eq!(status, 200, "{answer}");
            answer["choices"][0]["message"]["content"].clone()
        });
        assert!(contents[0].as_str().unwrap().len() > 4, "{contents:?}");
        assert_eq!(contents[0], contents[1]);
    }
    assert!(is_real() || gpu.trace().contains("sample_rows"));
    gpu.end_clean();
}

#[test]
fn caches_of_8_bits() {
    for (model, ty) in [
        ("llama31-gqa", "int8"),
        ("llama31-gqa", "fp8"),
        ("gemma3", "fp8"),
        ("qwen2", "int8"),
    ] {
        let args = &["--dtype", "float32", "--kv-type", ty];
        Case {
            model,
            adapters: &[],
            args,
        }
        .check("80");
    }
}
