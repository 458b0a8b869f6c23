//! Encoders that compute what BERT computes, and are spelled otherwise.
//!
//! RoBERTa (<https://arxiv.org/abs/1907.11692>) counts positions from the padding token's id plus
//! one, so that the first rows of its table of positions are never used. DistilBERT
//! (<https://arxiv.org/abs/1910.01108>) has no vectors of token types and names of its own.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};

/// How a checkpoint differs from BERT's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Bert,
    /// The table of positions has so many rows before that of the first token.
    Roberta {
        n_before: usize,
    },
    DistilBert,
}

/// DistilBERT's names of tensors, and BERT's.
const DISTILBERT: [(&str, &str); 9] = [
    ("transformer.layer.", "encoder.layer."),
    (".attention.q_lin.", ".attention.self.query."),
    (".attention.k_lin.", ".attention.self.key."),
    (".attention.v_lin.", ".attention.self.value."),
    (".attention.out_lin.", ".attention.output.dense."),
    (".sa_layer_norm.", ".attention.output.LayerNorm."),
    (".ffn.lin1.", ".intermediate.dense."),
    (".ffn.lin2.", ".output.dense."),
    (".output_layer_norm.", ".output.LayerNorm."),
];

/// DistilBERT's fields of `config.json`, and BERT's.
const DISTILBERT_FIELDS: [(&str, &str); 5] = [
    ("dim", "hidden_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("hidden_dim", "intermediate_size"),
    ("activation", "hidden_act"),
];

impl Spelling {
    /// Reads `model_type`, and makes the rest of a `config.json` what BERT's would be.
    pub(super) fn of(config: &mut Map<String, Value>) -> Result<Self, String> {
        let kind = config.get("model_type").and_then(Value::as_str);
        let spelling = match kind.unwrap_or("(none)") {
            "bert" => return Ok(Self::Bert),
            "roberta" | "xlm-roberta" | "camembert" => {
                let pad = config.get("pad_token_id").and_then(Value::as_u64);
                let n_before = pad.map_or(2, |pad| pad as usize + 1);
                let positions = config
                    .get("max_position_embeddings")
                    .and_then(Value::as_u64);
                let n_left = positions.and_then(|n| n.checked_sub(n_before as u64));
                let Some(n_left @ 1..) = n_left else {
                    return Err(format!(
                        "field `max_position_embeddings`: no positions are left after the \
                         {n_before} that are not used"
                    ));
                };
                config.insert("max_position_embeddings".to_string(), json!(n_left));
                Self::Roberta { n_before }
            }
            "distilbert" => {
                for (theirs, ours) in DISTILBERT_FIELDS {
                    let Some(value) = config.remove(theirs) else {
                        return Err(format!("field `{theirs}` is missing"));
                    };
                    config.insert(ours.to_string(), value);
                }
                config.insert("layer_norm_eps".to_string(), json!(1e-12));
                config.insert("type_vocab_size".to_string(), json!(1));
                config
                    .entry("hidden_dropout_prob")
                    .or_insert_with(|| json!(0.0));
                Self::DistilBert
            }
            other => {
                return Err(format!(
                    "model_type `{other}` is not supported as an encoder; supported: bert, \
                     roberta, xlm-roberta, camembert, distilbert"
                ));
            }
        };
        config.insert("model_type".to_string(), json!("bert"));
        Ok(spelling)
    }

    /// The tensors under BERT's names.
    pub(super) fn tensors_of_bert(
        self,
        tensors: HashMap<String, Tensor>,
    ) -> Result<HashMap<String, Tensor>, String> {
        let prefix = match self {
            Self::Bert => return Ok(tensors),
            Self::Roberta { .. } => "roberta.",
            Self::DistilBert => "distilbert.",
        };
        let mut named: HashMap<String, Tensor> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let name = name.strip_prefix(prefix).unwrap_or(&name).to_string();
                (self.name_of_bert(name), tensor)
            })
            .collect();
        let failed = |error: candle_core::Error| error.to_string();
        match self {
            Self::Bert => {}
            Self::Roberta { n_before } => {
                let name = "embeddings.position_embeddings.weight";
                let table = named
                    .get(name)
                    .ok_or_else(|| format!("tensor `{name}` is missing"))?;
                let n_rows = table.dim(0).map_err(failed)?;
                let n_left = n_rows
                    .checked_sub(n_before)
                    .ok_or_else(|| format!("tensor `{name}` has {n_rows} rows only"))?;
                let table = table.narrow(0, n_before, n_left).map_err(failed)?;
                named.insert(name.to_string(), table);
            }
            Self::DistilBert => {
                let name = "embeddings.word_embeddings.weight";
                let words = named
                    .get(name)
                    .ok_or_else(|| format!("tensor `{name}` is missing"))?;
                let shape = (1, words.dim(1).map_err(failed)?);
                let none = Tensor::zeros(shape, words.dtype(), &Device::Cpu).map_err(failed)?;
                named.insert("embeddings.token_type_embeddings.weight".to_string(), none);
            }
        }
        Ok(named)
    }

    fn name_of_bert(self, name: String) -> String {
        match self {
            Self::DistilBert => DISTILBERT
                .iter()
                .fold(name, |name, (theirs, ours)| name.replace(theirs, ours)),
            _ => name,
        }
    }
}
