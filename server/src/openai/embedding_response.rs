//! The answer of `POST /v1/embeddings`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;

use super::EncodingFormat;

/// Vectors in the order of their inputs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EmbeddingList {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl EmbeddingList {
    /// `model`: as the client called it.
    pub fn new(
        model: String,
        vectors: Vec<Vec<f32>>,
        format: EncodingFormat,
        n_tokens: u64,
    ) -> Self {
        let embedding = |(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: Values::new(vector, format),
        };
        Self {
            object: "list",
            data: vectors.into_iter().enumerate().map(embedding).collect(),
            model,
            usage: EmbeddingUsage {
                prompt_tokens: n_tokens,
                total_tokens: n_tokens,
            },
        }
    }
}

impl Values {
    fn new(vector: Vec<f32>, format: EncodingFormat) -> Self {
        match format {
            EncodingFormat::Float => Self::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Self::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_hold_the_same_values() {
        let json = |format| {
            let list = EmbeddingList::new("m".to_owned(), vec![vec![1.0, -0.1]], format, 3);
            serde_json::to_string(&list).unwrap()
        };
        let float = json(EncodingFormat::Float);
        assert!(float.contains(r#""embedding":[1.0,-0.1]"#), "{float}");
        assert!(float.contains(r#""total_tokens":3"#), "{float}");
        let base64 = json(EncodingFormat::Base64);
        assert!(base64.contains(r#""embedding":"AACAP83MzL0=""#), "{base64}");
    }
}
