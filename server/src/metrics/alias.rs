//! vLLM's names for what is measured here, where routers and autoscalers read them: the
//! inference extension of the Gateway API, llm-d, and dashboards made for vLLM.
//!
//! An alias is the same series under another name, with vLLM's labels. It is written from the
//! text of our own series, so that the two can never differ.

use std::fmt::Write;

use super::name::Name;
use crate::adapters::AdaptersInUse;

/// Our series, and vLLM's name for the same.
const ALIASES: [(Name, &str); 14] = [
    (Name::RunningSequences, "vllm:num_requests_running"),
    (Name::WaitingSequences, "vllm:num_requests_waiting"),
    (Name::KvUsage, "vllm:kv_cache_usage_perc"),
    (Name::PromptTokens, "vllm:prompt_tokens_total"),
    (Name::GeneratedTokens, "vllm:generation_tokens_total"),
    (Name::QueriedPromptTokens, "vllm:prefix_cache_queries_total"),
    (Name::CachedPromptTokens, "vllm:prefix_cache_hits_total"),
    (Name::Preemptions, "vllm:num_preemptions_total"),
    (Name::TimeToFirstToken, "vllm:time_to_first_token_seconds"),
    (Name::InterToken, "vllm:inter_token_latency_seconds"),
    (Name::EndToEnd, "vllm:e2e_request_latency_seconds"),
    (Name::Queue, "vllm:request_queue_time_seconds"),
    (Name::StepTokens, "vllm:iteration_tokens_total"),
    (Name::RejectedRequests, "vllm:admission_rejections_total"),
];

/// All names of vLLM's that are served, and whether each is a histogram.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = (&'static str, bool)> {
    let aliases = ALIASES.iter().map(|(own, alias)| {
        let kind = super::name::ALL[*own as usize].2;
        (*alias, kind == super::name::Kind::Histogram)
    });
    let others = ["vllm:cache_config_info", "vllm:lora_requests_info"];
    aliases.chain(others.map(|name| (name, false)))
}

/// What the aliases say that is not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Label `model_name` of all aliases.
    pub model: String,
    pub block_size: usize,
    pub n_blocks: usize,
}

/// The text of all aliases, from the text of our own series.
pub(super) fn render(
    own: &str,
    served: &[Served],
    adapters: &AdaptersInUse,
    unix_seconds: u64,
) -> String {
    let model = escape(served.first().map_or("", |served| &served.model));
    let mut text = String::new();
    for line in own.lines() {
        if let Some(line) = renamed(line, &model) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    // Writing to a string cannot fail.
    text.push_str(
        "# HELP vllm:cache_config_info Shape of the KV cache\n\
         # TYPE vllm:cache_config_info gauge\n",
    );
    for served in served {
        let Served {
            model,
            block_size,
            n_blocks,
        } = served;
        let model = escape(model);
        writeln!(
            text,
            "vllm:cache_config_info{{model_name=\"{model}\",engine=\"0\",\
             block_size=\"{block_size}\",num_gpu_blocks=\"{n_blocks}\"}} 1"
        )
        .ok();
    }
    let running = escape(&adapters.running.join(","));
    let waiting = escape(&adapters.waiting.join(","));
    let max_loaded = adapters.max_loaded;
    write!(
        text,
        "# HELP vllm:lora_requests_info Adapters that run and wait; the value is the time\n\
         # TYPE vllm:lora_requests_info gauge\n\
         vllm:lora_requests_info{{max_lora=\"{max_loaded}\",\
         running_lora_adapters=\"{running}\",\
         waiting_lora_adapters=\"{waiting}\"}} {unix_seconds}\n"
    )
    .ok();
    text
}

/// A line of an aliased series under its other name.
fn renamed(line: &str, model: &str) -> Option<String> {
    for (name, alias) in ALIASES {
        let own = name.name();
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ')?;
            let (described, rest) = rest.split_once(' ')?;
            if described == own {
                return Some(format!("# {word} {alias} {rest}"));
            }
        } else if let Some(rest) = line.strip_prefix(own) {
            // The series itself, or `_bucket`, `_sum` or `_count` of a histogram.
            let n_suffix = rest.find(['{', ' '])?;
            let (suffix, rest) = rest.split_at(n_suffix);
            if !["", "_bucket", "_sum", "_count"].contains(&suffix) {
                continue;
            }
            // One of several models has its name as a label already.
            if let Some(more) = rest.strip_prefix("{model=") {
                return Some(format!("{alias}{suffix}{{engine=\"0\",model_name={more}"));
            }
            let labels = format!("model_name=\"{model}\",engine=\"0\"");
            return Some(match rest.strip_prefix('{') {
                Some(more) => format!("{alias}{suffix}{{{labels},{more}"),
                None => format!("{alias}{suffix}{{{labels}}}{rest}"),
            });
        }
    }
    None
}

/// A label's value in Prometheus' text format.
fn escape(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_renamed_with_their_labels() {
        let gauge = renamed("understudy_sequences_running 3", "m").unwrap();
        assert_eq!(
            gauge,
            "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 3"
        );
        let bucket = "understudy_queue_seconds_bucket{le=\"0.5\"} 7";
        assert_eq!(
            renamed(bucket, "m").unwrap(),
            "vllm:request_queue_time_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.5\"} 7"
        );
        let kind = renamed("# TYPE understudy_queue_seconds histogram", "m");
        assert_eq!(
            kind.unwrap(),
            "# TYPE vllm:request_queue_time_seconds histogram"
        );
        for other in ["", "understudy_queue_seconds_of_else 1", "# EOF", "x 1"] {
            assert_eq!(renamed(other, "m"), None, "{other}");
        }
    }

    #[test]
    fn names_of_models_are_escaped() {
        let served = Served {
            model: "a\"b\\c".to_owned(),
            block_size: 16,
            n_blocks: 10,
        };
        let text = render(
            "understudy_sequences_running 3\n",
            &[served],
            &AdaptersInUse {
                running: vec!["a".to_owned(), "b".to_owned()],
                waiting: vec!["b".to_owned()],
                max_loaded: 7,
            },
            5,
        );
        assert!(
            text.contains(
                r#"model_name="a\"b\\c",engine="0",block_size="16",num_gpu_blocks="10"} 1"#
            )
        );
        let adapters =
            "max_lora=\"7\",running_lora_adapters=\"a,b\",waiting_lora_adapters=\"b\"} 5";
        assert!(text.contains(adapters));
    }
}
