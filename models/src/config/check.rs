//! Sizes that no model has.

use std::path::Path;

use super::ModelConfig;
use crate::LoadError;

/// Sizes beyond these are damaged files, not models: products of any few of them stay far from
/// overflow.
pub(super) const MAX_LAYERS: usize = 1 << 12;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 28;

impl ModelConfig {
    /// Refuses what would make no model. `field` gives the file's own name of a size.
    pub(super) fn check(
        &self,
        file: &Path,
        field: impl Fn(&str) -> String,
    ) -> Result<(), LoadError> {
        let fail = |name: &str, message: String| {
            Err(LoadError::new(
                file,
                format!("field `{}`: {message}", field(name)),
            ))
        };
        let sizes = [
            ("num_hidden_layers", self.n_layers, MAX_LAYERS),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_attention_heads", self.n_heads, MAX_LAYERS),
            ("num_key_value_heads", self.n_kv_heads, MAX_LAYERS),
            ("head_dim", self.head_dim, MAX_LAYERS),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("max_position_embeddings", self.max_positions, MAX_POSITIONS),
        ];
        for (name, size, most) in sizes {
            if size == 0 || size > most {
                return fail(name, format!("{size} is not between 1 and {most}"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return fail(
                "num_key_value_heads",
                format!(
                    "{} heads cannot share {} key-value heads equally",
                    self.n_heads, self.n_kv_heads
                ),
            );
        }
        for rope in &self.ropes {
            if rope.dim > self.head_dim || !rope.dim.is_multiple_of(2) || rope.dim == 0 {
                return fail(
                    "head_dim",
                    format!(
                        "cannot rotate {} of the {} values of a head",
                        rope.dim, self.head_dim
                    ),
                );
            }
            rope.check()
                .map_err(|message| LoadError::new(file, message))?;
        }
        if !(self.norm.eps.is_finite() && self.norm.eps >= 0.0) {
            return fail(
                "rms_norm_eps",
                format!("{} is not an epsilon", self.norm.eps),
            );
        }
        self.check_numbers(file)?;
        self.check_experts(file)
    }

    /// Factors that a file gives must be numbers that one can compute with.
    fn check_numbers(&self, file: &Path) -> Result<(), LoadError> {
        let attention = &self.attention;
        for (what, x) in [
            ("the attention's scale", Some(attention.scale)),
            ("the attention's soft cap", attention.softcap),
            ("the limit of queries, keys and values", attention.clip),
            ("the embedding's scale", Some(self.embedding.scale)),
            ("the residual scale", Some(self.block.residual_scale)),
            ("the logits' scale", Some(self.logits.scale)),
            ("the logits' soft cap", self.logits.softcap),
        ] {
            if x.is_some_and(|x| !(x.is_finite() && x > 0.0)) {
                return Err(LoadError::new(
                    file,
                    format!("{what} is not a positive number"),
                ));
            }
        }
        Ok(())
    }

    fn check_experts(&self, file: &Path) -> Result<(), LoadError> {
        let Some(experts) = &self.experts else {
            return Ok(());
        };
        let routing = &experts.routing;
        let n_allowed = routing.groups.map_or(routing.n_experts, |groups| {
            routing.n_experts / groups.n_groups.max(1) * groups.n_used
        });
        let is_split = routing
            .groups
            .is_none_or(|g| g.n_groups > 0 && routing.n_experts.is_multiple_of(g.n_groups));
        let widths = [
            Some(experts.intermediate_size),
            experts.shared.map(|s| s.intermediate_size),
        ];
        if !(1..=MAX_LAYERS).contains(&routing.n_experts)
            || !(1..=n_allowed.min(routing.n_experts)).contains(&routing.n_used)
            || n_allowed > routing.n_experts
            || !is_split
            || widths
                .into_iter()
                .flatten()
                .any(|n| n == 0 || n > MAX_WIDTH)
        {
            return Err(LoadError::new(
                file,
                format!("no model has experts like these: {experts:?}"),
            ));
        }
        Ok(())
    }
}
