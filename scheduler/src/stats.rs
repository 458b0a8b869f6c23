//! Figures for gauges and counters.

/// A scheduler's state and history in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that hold no blocks yet, or none any more after preemption.
    pub n_waiting: usize,
    /// Sequences that hold blocks.
    pub n_running: usize,
    /// All blocks: `n_blocks_in_use + n_blocks_free + n_blocks_cached`.
    pub n_blocks: usize,
    /// Blocks that running sequences hold.
    pub n_blocks_in_use: usize,
    /// Blocks that nobody holds and that contain nothing of use.
    pub n_blocks_free: usize,
    /// Blocks that nobody holds and that later requests may hit. They count as available.
    pub n_blocks_cached: usize,
    /// Tokens of waiting sequences: what is to be computed for them, but for prefix hits.
    pub n_tokens_waiting: usize,
    /// Tokens of running sequences, computed or not.
    pub n_tokens_running: usize,
    /// Times that a sequence lost its blocks to one that goes before it.
    pub n_preemptions: u64,
    /// Positions that had to be computed again after preemption.
    pub n_tokens_lost: u64,
    /// Prompt tokens of requests when first admitted, the prefix cache being on.
    pub n_prefix_query_tokens: u64,
    /// Those of them that the prefix cache held.
    pub n_prefix_hit_tokens: u64,
    /// Steps that ended well.
    pub n_steps: u64,
    /// Steps that failed.
    pub n_failed_steps: u64,
    /// Rows that failed alone, in steps that ended well.
    pub n_failed_rows: u64,
    /// Times that the age bound decided who is served.
    pub n_overdue: u64,
    /// Tokens computed by steps that ended well.
    pub n_tokens_computed: u64,
    /// Tokens that were appended without a draw.
    pub n_tokens_forced: u64,
    /// Steps that were begun while the one before was in flight.
    pub n_steps_ahead: u64,
    /// Rows in flight whose sequence ended, or had to be computed again, before their step did.
    pub n_rows_void: u64,
}

/// The part of [`Stats`] that is counted, not derived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) n_preemptions: u64,
    pub(crate) n_tokens_lost: u64,
    pub(crate) n_prefix_query_tokens: u64,
    pub(crate) n_prefix_hit_tokens: u64,
    pub(crate) n_steps: u64,
    pub(crate) n_failed_steps: u64,
    pub(crate) n_failed_rows: u64,
    pub(crate) n_overdue: u64,
    pub(crate) n_tokens_computed: u64,
    pub(crate) n_tokens_forced: u64,
    pub(crate) n_steps_ahead: u64,
    pub(crate) n_rows_void: u64,
}
