//! Models against expected values from another implementation, through the scheduler.

/// Tests by the name of a checkpoint: all that have a form in GGUF and are served alike at every
/// length, and `more`.
macro_rules! each_model {
    ($then:ident, $($more:tt)*) => {
        $then! {
            llama_mha: "llama-mha",
            llama31_gqa: "llama31-gqa",
            llama32_tied: "llama32-tied",
            codellama: "codellama",
            llama_linear: "llama-linear",
            llama_yarn: "llama-yarn",
            llama_bias: "llama-bias",
            mistral_nemo: "mistral-nemo",
            mistral_sw: "mistral-sw",
            qwen2: "qwen2",
            qwen2_tied: "qwen2-tied",
            qwen3: "qwen3",
            gemma: "gemma",
            gemma2: "gemma2",
            gemma3: "gemma3",
            smollm3: "smollm3",
            phi3: "phi3",
            olmo2: "olmo2",
            olmo3: "olmo3",
            olmo: "olmo",
            granite: "granite",
            starcoder2: "starcoder2",
            stablelm: "stablelm",
            phi: "phi",
            gpt_neox: "gpt-neox",
            gpt_neox_seq: "gpt-neox-seq",
            gpt2: "gpt2",
            gpt2_hub: "gpt2-hub",
            gpt_bigcode: "gpt-bigcode",
            bloom: "bloom",
            falcon_mqa: "falcon-mqa",
            falcon_new: "falcon-new",
            cohere: "cohere",
            glm4: "glm4",
            mixtral: "mixtral",
            qwen2_moe: "qwen2-moe",
            qwen3_moe: "qwen3-moe",
            gpt_oss: "gpt-oss",
            deepseek_v3: "deepseek-v3",
            $($more)*
        }
    };
}

mod adapters;
mod documented;
mod expected;
mod gguf;
mod micro;
mod replaced;
mod serve;
mod smollm2;
