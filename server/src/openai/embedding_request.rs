//! The body of `POST /v1/embeddings`.

use super::chat_request::take_hosted_hints;
use super::prompts::{Prompt, take_prompts};
use super::{ApiError, Fields};

/// How vectors are written. The official SDKs ask for base64 and decode it themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingFormat {
    Float,
    /// Of the values as little-endian f32.
    Base64,
}

/// An embedding request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingRequest {
    pub inputs: Vec<Prompt>,
    pub format: EncodingFormat,
    /// Values of each vector; `None`: all.
    pub dimensions: Option<u32>,
}

impl EmbeddingRequest {
    /// Reads a body whose `model` has been taken already. `width`: values of the model's vectors.
    pub fn parse(mut body: Fields, vocab_size: usize, width: u32) -> Result<Self, ApiError> {
        let inputs = take_prompts(&mut body, "input", vocab_size)?;
        if let Some(i) = inputs.iter().position(is_empty) {
            let message =
                format!("Invalid 'input': input {i} is an empty string; a vector needs some text.");
            return Err(ApiError::invalid("input", "empty_string", message));
        }
        let format = body.word("encoding_format", &["float", "base64"])?;
        let dimensions = body.count("dimensions", 1, width)?;
        take_hosted_hints(&mut body)?;
        body.finish()?;
        Ok(Self {
            inputs,
            format: match format {
                Some("base64") => EncodingFormat::Base64,
                _ => EncodingFormat::Float,
            },
            dimensions,
        })
    }
}

fn is_empty(input: &Prompt) -> bool {
    matches!(input, Prompt::Text(text) if text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<EmbeddingRequest, ApiError> {
        let body = Fields::from_body(body.as_bytes()).unwrap();
        EmbeddingRequest::parse(body, 100, 8)
    }

    #[test]
    fn all_forms_of_input() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        for (body, inputs) in [
            (r#"{"input": "a"}"#, vec![text("a")]),
            (r#"{"input": ["a", "b"]}"#, vec![text("a"), text("b")]),
            (r#"{"input": [1, 2]}"#, vec![Prompt::Tokens(vec![1, 2])]),
            (
                r#"{"input": [[1], [2]]}"#,
                vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])],
            ),
        ] {
            let request = parse(body).unwrap();
            assert_eq!(request.inputs, inputs);
            assert_eq!(request.format, EncodingFormat::Float);
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (body, param, code) in [
            (r"{}", "input", "missing_required_parameter"),
            (r#"{"input": ""}"#, "input", "empty_string"),
            (r#"{"input": []}"#, "input", "empty_array"),
            (r#"{"input": [[]]}"#, "input[0]", "empty_array"),
            (r#"{"input": [100]}"#, "input[0]", "invalid_value"),
            (r#"{"input": {}}"#, "input", "invalid_type"),
            (
                r#"{"input": "a", "dimensions": 9}"#,
                "dimensions",
                "integer_above_max_value",
            ),
            (
                r#"{"input": "a", "encoding_format": "hex"}"#,
                "encoding_format",
                "invalid_value",
            ),
            (
                r#"{"input": "a", "inputs": 1}"#,
                "inputs",
                "unknown_parameter",
            ),
        ] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
            assert_eq!(error.code.as_deref(), Some(code), "{body}");
        }
    }
}
