//! What a started server says on standard output.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::fleet::{MemberState, Told};
use crate::load::Description;
use crate::plan::{MemoryPlan, human_bytes};

/// Everything the banner shows.
#[derive(Debug)]
pub struct Banner {
    pub address: SocketAddr,
    pub has_tls: bool,
    pub names: Vec<String>,
    pub description: Description,
    pub plan: MemoryPlan,
    pub needs_key: bool,
    /// Whether the model generates text; otherwise it makes vectors.
    pub generates: bool,
    /// Models that make vectors.
    pub embedding_names: Vec<String>,
    /// Whether the model has a chat template.
    pub can_chat: bool,
    /// Models beside it.
    pub others: Vec<Told>,
}

impl Banner {
    /// The text, with a curl line that works as it stands (given a key, if one is needed).
    pub fn text(&self) -> String {
        let Self {
            description, plan, ..
        } = self;
        let lines = [
            ("model", self.names.join(", ")),
            ("from", description.path.clone()),
            (
                "weights",
                format!(
                    "{} in memory{}, architecture {}",
                    human_bytes(description.n_weight_bytes),
                    widened(description.n_widened_bytes),
                    description.architecture
                ),
            ),
            (
                "KV cache",
                if self.generates {
                    format!(
                        "{}: {} blocks of {} tokens; up to {} tokens a sequence",
                        human_bytes(plan.n_bytes()),
                        plan.n_blocks,
                        plan.block_size,
                        plan.max_model_len
                    )
                } else {
                    format!("none; texts are cut to {} tokens", plan.max_model_len)
                },
            ),
            (
                "vectors",
                match self.embedding_names.as_slice() {
                    [] => "none (see --embeddings and --embedding-model)".to_owned(),
                    names => format!("by {}", names.join(", ")),
                },
            ),
            ("runs on", description.device.clone()),
            ("URL", format!("{}/v1", self.url())),
        ];
        let mut text = format!("Understudy {}\n", env!("CARGO_PKG_VERSION"));
        for (name, value) in lines {
            // Writing to a string cannot fail.
            writeln!(text, "  {name:<9} {value}").ok();
        }
        for other in &self.others {
            let state = match other.state {
                MemberState::Loaded => "in memory",
                MemberState::OnDisk | MemberState::Failed => "loaded when it is first asked for",
            };
            let bytes = human_bytes(other.n_bytes);
            writeln!(text, "  and       {}: {bytes}, {state}", other.name).ok();
        }
        text.push_str("\nTry it:\n");
        text.push_str(&self.curl());
        text
    }

    /// An address that a client on this machine can use.
    fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        if self.address.ip().is_unspecified() {
            format!("{scheme}://localhost:{}", self.address.port())
        } else {
            format!("{scheme}://{}", self.address)
        }
    }

    fn curl(&self) -> String {
        let name = self.names.first().map_or("", String::as_str);
        let (path, body) = if !self.generates {
            (
                "embeddings",
                serde_json::json!({"model": name, "input": "A cat sits on the mat."}),
            )
        } else if self.can_chat {
            let messages = serde_json::json!([{"role": "user", "content": "Say hello."}]);
            (
                "chat/completions",
                serde_json::json!({"model": name, "messages": messages}),
            )
        } else {
            (
                "completions",
                serde_json::json!({"model": name, "prompt": "Once upon a time"}),
            )
        };
        // A single quote ends the shell's string; it is written as '\''.
        let body = body.to_string().replace('\'', r"'\''");
        let key = if self.needs_key {
            " \\\n    -H \"Authorization: Bearer $UNDERSTUDY_API_KEY\""
        } else {
            ""
        };
        format!(
            "  curl {}/v1/{path} -H 'Content-Type: application/json'{key} \\\n    -d '{body}'\n",
            self.url()
        )
    }
}

/// Memory that a quantized checkpoint takes beyond its files is not kept quiet.
fn widened(n_bytes: u64) -> String {
    if n_bytes == 0 {
        return String::new();
    }
    format!(
        " (of which {} dequantized, as no block format holds them exactly)",
        human_bytes(n_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curl_line_has_url_model_and_key() {
        let description = Description {
            architecture: "llama".to_owned(),
            path: "/m".to_owned(),
            n_weight_bytes: 3 << 20,
            n_widened_bytes: 1 << 20,
            device: "CPU".to_owned(),
        };
        let plan = MemoryPlan {
            n_blocks: 10,
            block_size: 16,
            bytes_per_block: 1 << 20,
            max_model_len: 64,
        };
        let banner = Banner {
            address: "0.0.0.0:8000".parse().unwrap(),
            has_tls: false,
            names: vec!["it's".to_owned()],
            description,
            plan,
            needs_key: true,
            generates: true,
            embedding_names: Vec::new(),
            can_chat: true,
            others: Vec::new(),
        };
        let text = banner.text();
        assert!(text.contains("curl http://localhost:8000/v1/chat/completions"));
        assert!(text.contains(r#""model":"it'\''s""#));
        assert!(text.contains("Bearer $UNDERSTUDY_API_KEY"));
        assert!(text.contains("10.0 MiB: 10 blocks"));
        assert!(text.contains("3.0 MiB in memory (of which 1.0 MiB dequantized"));
    }
}
