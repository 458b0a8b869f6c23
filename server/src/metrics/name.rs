//! Every metric by name: what kind it is, and what it says.

use metrics::{Key, Label};

/// What a metric counts, without unit conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    HttpRequests,
    RunningSequences,
    WaitingSequences,
    RunningTokens,
    ReceivingRequests,
    QueuedRequests,
    QueuedTokens,
    KvBlocks,
    KvBlocksInUse,
    KvBlocksCached,
    KvUsage,
    PromptTokens,
    QueriedPromptTokens,
    CachedPromptTokens,
    GeneratedTokens,
    EmbeddedTexts,
    EmbeddedTokens,
    Preemptions,
    LostTokens,
    StepsAhead,
    DiscardedRows,
    ForcedTokens,
    OverdueTurns,
    FinishedSequences,
    Disconnects,
    RejectedRequests,
    FailedSteps,
    FailedRows,
    FailedStreams,
    TimeToFirstToken,
    InterToken,
    EndToEnd,
    Queue,
    Step,
    StepTokens,
    TenantPromptTokens,
    TenantGeneratedTokens,
    TenantTimeToFirstToken,
    AdapterHits,
    AdapterMisses,
    AdapterEvictions,
    AdapterFailures,
    AdaptersLoaded,
    AdapterBytes,
    FileBytes,
    Reloads,
    Panics,
    TracedRequests,
    AliasRequests,
    AliasFailures,
    AliasGeneratedTokens,
    AliasTimeToFirstToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All of them: name on `/metrics`, kind, help.
#[rustfmt::skip]
pub(super) const ALL: [(Name, &str, Kind, &str); 52] = {
    use Kind::{Counter, Gauge, Histogram};
    [
        (Name::HttpRequests, "understudy_http_requests_total", Counter, "HTTP requests by route and status"),
        (Name::RunningSequences, "understudy_sequences_running", Gauge, "Sequences that own KV blocks"),
        (Name::WaitingSequences, "understudy_sequences_waiting", Gauge, "Sequences that wait to run"),
        (Name::RunningTokens, "understudy_tokens_running", Gauge, "Tokens of sequences that own KV blocks"),
        (Name::ReceivingRequests, "understudy_requests_receiving", Gauge, "Requests that were let in and are not in the queue yet: their bodies are still coming"),
        (Name::QueuedRequests, "understudy_requests_queued", Gauge, "Requests that no step has worked on yet"),
        (Name::QueuedTokens, "understudy_tokens_queued", Gauge, "Prompt tokens of requests that no step has worked on yet"),
        (Name::KvBlocks, "understudy_kv_blocks", Gauge, "KV blocks in all"),
        (Name::KvBlocksInUse, "understudy_kv_blocks_in_use", Gauge, "KV blocks owned by sequences"),
        (Name::KvBlocksCached, "understudy_kv_blocks_cached", Gauge, "KV blocks kept for reuse and owned by no sequence"),
        (Name::KvUsage, "understudy_kv_usage_ratio", Gauge, "KV blocks owned by sequences, from 0 to 1"),
        (Name::PromptTokens, "understudy_prompt_tokens_total", Counter, "Prompt tokens of started requests"),
        (Name::QueriedPromptTokens, "understudy_queried_prompt_tokens_total", Counter, "Prompt tokens looked up in the prefix cache"),
        (Name::CachedPromptTokens, "understudy_cached_prompt_tokens_total", Counter, "Prompt tokens taken from the prefix cache"),
        (Name::GeneratedTokens, "understudy_generated_tokens_total", Counter, "Tokens drawn, and appended without a draw"),
        (Name::EmbeddedTexts, "understudy_embedded_texts_total", Counter, "Texts answered with a vector"),
        (Name::EmbeddedTokens, "understudy_embedded_tokens_total", Counter, "Tokens of texts answered with a vector"),
        (Name::Preemptions, "understudy_preemptions_total", Counter, "Sequences put back to waiting"),
        (Name::LostTokens, "understudy_lost_tokens_total", Counter, "Tokens computed again after preemption"),
        (Name::StepsAhead, "understudy_steps_ahead_total", Counter, "Steps started while another was running"),
        (Name::DiscardedRows, "understudy_rows_discarded_total", Counter, "Rows of such steps whose sequence had ended, or had to wait for its token after all"),
        (Name::ForcedTokens, "understudy_forced_tokens_total", Counter, "Tokens appended without a draw, where a grammar left one choice"),
        (Name::OverdueTurns, "understudy_overdue_turns_total", Counter, "Turns decided by the age bound"),
        (Name::FinishedSequences, "understudy_sequences_finished_total", Counter, "Sequences that ended, by reason"),
        (Name::Disconnects, "understudy_disconnects_total", Counter, "Requests whose client went away before the end"),
        (Name::RejectedRequests, "understudy_requests_rejected_total", Counter, "Requests refused by a limit of the queue or of their key"),
        (Name::FailedSteps, "understudy_steps_failed_total", Counter, "Steps that could not be computed"),
        (Name::FailedRows, "understudy_rows_failed_total", Counter, "Sequences that failed alone in a step"),
        (Name::FailedStreams, "understudy_streams_failed_total", Counter, "Streams that began with status 200 and ended with an error as their last event"),
        (Name::TimeToFirstToken, "understudy_time_to_first_token_seconds", Histogram, "From submission to the first token of a sequence"),
        (Name::InterToken, "understudy_inter_token_seconds", Histogram, "Between two tokens of a sequence"),
        (Name::EndToEnd, "understudy_request_seconds", Histogram, "From submission to the last token of a request"),
        (Name::Queue, "understudy_queue_seconds", Histogram, "From submission to the first step that works on a request"),
        (Name::Step, "understudy_step_seconds", Histogram, "Duration of a step"),
        (Name::StepTokens, "understudy_step_tokens", Histogram, "Tokens computed in a step"),
        (Name::TenantPromptTokens, "understudy_tenant_prompt_tokens_total", Counter, "Prompt tokens of started requests, by tenant and adapter"),
        (Name::TenantGeneratedTokens, "understudy_tenant_generated_tokens_total", Counter, "Tokens drawn, by tenant and adapter"),
        (Name::TenantTimeToFirstToken, "understudy_tenant_time_to_first_token_seconds", Histogram, "From submission to the first token of a sequence, by tenant and adapter"),
        (Name::AdapterHits, "understudy_adapter_hits_total", Counter, "Requests whose adapter was in memory, counted for each adapter of a stack"),
        (Name::AdapterMisses, "understudy_adapter_misses_total", Counter, "Loads of adapters that requests had to wait for"),
        (Name::AdapterEvictions, "understudy_adapter_evictions_total", Counter, "Adapters that left memory to make room for others"),
        (Name::AdapterFailures, "understudy_adapter_failures_total", Counter, "Loads of adapters that failed and that requests had waited for"),
        (Name::AdaptersLoaded, "understudy_adapters_loaded", Gauge, "Adapters in memory"),
        (Name::AdapterBytes, "understudy_adapter_bytes", Gauge, "Bytes of adapters in memory"),
        (Name::FileBytes, "understudy_file_bytes", Gauge, "Bytes of uploaded files, those being received as well, and 4096 for each"),
        (Name::Reloads, "understudy_reloads_total", Counter, "Times that files were read anew, by what and with which result"),
        (Name::Panics, "understudy_panics_total", Counter, "Panics that were caught, by place"),
        (Name::TracedRequests, "understudy_traced_requests_total", Counter, "Requests whose spans were sent to the collector, or were dropped"),
        (Name::AliasRequests, "understudy_alias_requests_total", Counter, "Requests that called an alias, by what answered them (arm) or got a copy (shadow)"),
        (Name::AliasFailures, "understudy_alias_failures_total", Counter, "Requests that called an alias and failed, by what was to answer them"),
        (Name::AliasGeneratedTokens, "understudy_alias_generated_tokens_total", Counter, "Tokens of answers to requests that called an alias"),
        (Name::AliasTimeToFirstToken, "understudy_alias_time_to_first_token_seconds", Histogram, "From submission to the first text of an answer, by alias and what answered"),
    ]
};

impl Name {
    pub(super) fn name(self) -> &'static str {
        // The table is in the order of the enum, which a test holds.
        ALL[self as usize].1
    }

    pub(super) fn key_with(self, labels: Vec<Label>) -> Key {
        Key::from_parts(self.name(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (i, (name, text, kind, _)) in ALL.iter().enumerate() {
            assert_eq!(*name as usize, i, "{text}");
            let is_total = text.ends_with("_total");
            assert_eq!(*kind == Kind::Counter, is_total, "{text}");
        }
    }
}
