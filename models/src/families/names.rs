//! What tensors are called, and in what pieces projections are stored.

/// Names of a model's tensors in one container. Those of projections and norms lack `.weight`
/// and `.bias`; those of layers follow `layers` and the layer's number. An empty name stands for
/// what the family does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// May be missing before all names.
    pub(crate) prefix: &'static str,
    pub(crate) embedding: &'static str,
    pub(crate) embedding_norm: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) final_norm: &'static str,
    pub(crate) head: &'static str,
    /// Stands before a layer's number.
    pub(crate) layers: &'static str,
    pub(crate) norms: NormNames,
    pub(crate) qkv: Qkv,
    pub(crate) output: &'static str,
    pub(crate) latent: LatentNames,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    /// Full name of the sinks.
    pub(crate) sinks: &'static str,
    pub(crate) mlp_in: MlpIn,
    pub(crate) mlp_down: &'static str,
    pub(crate) experts: ExpertNames,
    /// Layers' matrices are stored `[n_in, n_out]`.
    pub(crate) transposed: bool,
    /// Ends of names of tensors in layers that hold nothing learned.
    pub(crate) ignored: &'static [&'static str],
}

/// Norms of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormNames {
    pub(crate) before_attention: &'static str,
    pub(crate) after_attention: &'static str,
    pub(crate) before_mlp: &'static str,
    pub(crate) after_mlp: &'static str,
}

/// How query, key and value projections are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Qkv {
    Separate([&'static str; 3]),
    /// One matrix: all queries, all keys, all values.
    Stacked(&'static str),
    /// One matrix: for each key-value head its queries, its key, its value.
    Grouped(&'static str),
}

impl Qkv {
    /// The matrix that queries are in.
    pub(crate) fn first(self) -> &'static str {
        match self {
            Self::Separate([name, ..]) | Self::Stacked(name) | Self::Grouped(name) => name,
        }
    }
}

/// Tensors of latent attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatentNames {
    /// Queries, where they come from the input.
    pub(crate) q: &'static str,
    pub(crate) q_down: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) q_up: &'static str,
    /// To the narrow vector, and to the rotated part of keys.
    pub(crate) kv_down: &'static str,
    pub(crate) kv_norm: &'static str,
    /// Keys and values of each head.
    pub(crate) kv_up: &'static str,
    /// The same in two tensors, heads outermost: keys `[kv_rank, dim]`, values `[dim, kv_rank]`.
    pub(crate) kv_up_parted: [&'static str; 2],
}

/// How the inner projections of a feed-forward block are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MlpIn {
    /// Gate (empty for a block without) and up.
    Separate([&'static str; 2]),
    /// One matrix: the gate, then up.
    Stacked(&'static str),
}

impl MlpIn {
    /// The matrix that the values up are in.
    pub(crate) fn last(self) -> &'static str {
        match self {
            Self::Separate([_, name]) | Self::Stacked(name) => name,
        }
    }
}

/// Tensors of a mixture of experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertNames {
    pub(crate) router: &'static str,
    /// Full name.
    pub(crate) correction_bias: &'static str,
    pub(crate) storage: ExpertStorage,
    /// Gate, up and down of the expert that all rows use.
    pub(crate) shared: [&'static str; 3],
    pub(crate) shared_gate: &'static str,
}

/// Where experts' gate, up and down projections are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ExpertStorage {
    /// Each by itself: a name before the expert's number, and three after it.
    Separate(&'static str, [&'static str; 3]),
    /// All experts' in one tensor `[n_experts, n_out, n_in]` each.
    Stacked([&'static str; 3]),
    /// `[n_experts, n_in, n_out]`, gate and up in alternating columns, and down.
    Interleaved([&'static str; 2]),
}

const NO_EXPERTS: ExpertNames = ExpertNames {
    router: "",
    correction_bias: "",
    storage: ExpertStorage::Stacked([""; 3]),
    shared: [""; 3],
    shared_gate: "",
};

/// Llama's names in safetensors, which most families took over.
pub(crate) const HUGGING_FACE: Names = Names {
    prefix: "model.",
    embedding: "model.embed_tokens",
    embedding_norm: "",
    positions: "",
    final_norm: "model.norm",
    head: "lm_head",
    layers: "model.layers.",
    norms: NormNames {
        before_attention: "input_layernorm",
        after_attention: "",
        before_mlp: "post_attention_layernorm",
        after_mlp: "",
    },
    qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    latent: LatentNames {
        q: "self_attn.q_proj",
        q_down: "self_attn.q_a_proj",
        q_norm: "self_attn.q_a_layernorm",
        q_up: "self_attn.q_b_proj",
        kv_down: "self_attn.kv_a_proj_with_mqa",
        kv_norm: "self_attn.kv_a_layernorm",
        kv_up: "self_attn.kv_b_proj",
        kv_up_parted: [""; 2],
    },
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    sinks: "self_attn.sinks",
    mlp_in: MlpIn::Separate(["mlp.gate_proj", "mlp.up_proj"]),
    mlp_down: "mlp.down_proj",
    experts: NO_EXPERTS,
    transposed: false,
    ignored: &[".rotary_emb.inv_freq"],
};

/// Names in GGUF files, the same for all families but a few.
pub(crate) const GGUF: Names = Names {
    prefix: "",
    embedding: "token_embd",
    embedding_norm: "token_embd_norm",
    positions: "position_embd",
    final_norm: "output_norm",
    head: "output",
    layers: "blk.",
    norms: NormNames {
        before_attention: "attn_norm",
        after_attention: "post_attention_norm",
        before_mlp: "ffn_norm",
        after_mlp: "post_ffw_norm",
    },
    qkv: Qkv::Separate(["attn_q", "attn_k", "attn_v"]),
    output: "attn_output",
    latent: LatentNames {
        q: "attn_q",
        q_down: "attn_q_a",
        q_norm: "attn_q_a_norm",
        q_up: "attn_q_b",
        kv_down: "attn_kv_a_mqa",
        kv_norm: "attn_kv_a_norm",
        kv_up: "attn_kv_b",
        kv_up_parted: ["attn_k_b", "attn_v_b"],
    },
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    sinks: "attn_sinks.weight",
    mlp_in: MlpIn::Separate(["ffn_gate", "ffn_up"]),
    mlp_down: "ffn_down",
    experts: ExpertNames {
        router: "ffn_gate_inp",
        correction_bias: "exp_probs_b.bias",
        storage: ExpertStorage::Stacked(["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]),
        shared: ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"],
        shared_gate: "ffn_gate_inp_shexp",
    },
    transposed: false,
    ignored: &[".attn_rot_embd.weight", ".rope_freqs.weight"],
};

/// GGUF of a family whose feed-forward blocks have no gate.
pub(crate) const GGUF_PLAIN: Names = Names {
    mlp_in: MlpIn::Separate(["", "ffn_up"]),
    ..GGUF
};

/// The same with queries, keys and values in one matrix.
pub(crate) const GGUF_STACKED: Names = Names {
    qkv: Qkv::Stacked("attn_qkv"),
    ..GGUF_PLAIN
};
