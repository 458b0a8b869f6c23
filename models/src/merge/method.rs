//! The methods, and what each needs.

use super::{MergeError, MergeOptions};

/// How tensors are merged. `weight`: of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MergeMethod {
    /// The mean of the sources, by weight (Wortsman et al. 2022, "Model soups").
    Linear,
    /// Two sources, along the great circle between them (Shoemake 1985, "Animating rotation with
    /// quaternion curves"), each tensor as one vector. The weights say how far: the second's
    /// share of their sum.
    Slerp,
    /// The base, and `scale` times the weighted sum of the differences from it (Ilharco et al.
    /// 2022, "Editing models with task arithmetic").
    TaskArithmetic { scale: f64 },
    /// Of each difference only the share `density` of its largest values; where they have
    /// different signs, only those of the heavier sign; and of what is left the mean, by weight
    /// (Yadav et al. 2023, "TIES-merging"). Trimmed tensor by tensor.
    Ties { density: f64, scale: f64 },
    /// As task arithmetic, of differences of which a share of `1 - density` was dropped at random
    /// and the rest enlarged by `1 / density` (Yu et al. 2023, "Language models are super Mario").
    Dare { density: f64, scale: f64, seed: u64 },
    /// Dropped as by DARE, then signs elected and means taken as by TIES.
    DareTies { density: f64, scale: f64, seed: u64 },
}

impl MergeMethod {
    /// As it is spelled in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Slerp => "slerp",
            Self::TaskArithmetic { .. } => "task-arithmetic",
            Self::Ties { .. } => "ties",
            Self::Dare { .. } => "dare",
            Self::DareTies { .. } => "dare-ties",
        }
    }

    /// Whether it merges differences from a base.
    pub fn needs_base(self) -> bool {
        !matches!(self, Self::Linear | Self::Slerp)
    }

    /// What the differences are multiplied by in the end.
    pub(super) fn scale(self) -> f64 {
        match self {
            Self::Linear | Self::Slerp => 1.0,
            Self::TaskArithmetic { scale }
            | Self::Ties { scale, .. }
            | Self::Dare { scale, .. }
            | Self::DareTies { scale, .. } => scale,
        }
    }

    pub(super) fn density(self) -> Option<f64> {
        match self {
            Self::Linear | Self::Slerp | Self::TaskArithmetic { .. } => None,
            Self::Ties { density, .. }
            | Self::Dare { density, .. }
            | Self::DareTies { density, .. } => Some(density),
        }
    }

    pub(super) fn seed(self) -> Option<u64> {
        match self {
            Self::Dare { seed, .. } | Self::DareTies { seed, .. } => Some(seed),
            _ => None,
        }
    }

    /// Whether signs are elected.
    pub(super) fn elects(self) -> bool {
        matches!(self, Self::Ties { .. } | Self::DareTies { .. })
    }
}

impl MergeOptions {
    /// Refuses what makes no sense before anything is read.
    pub(super) fn check(&self) -> Result<(), MergeError> {
        let refuse = |message: String| Err(MergeError::Options(message));
        let name = self.method.name();
        if self.method.needs_base() != self.base.is_some() {
            return refuse(match &self.base {
                Some(base) => format!(
                    "{name} merges checkpoints as they are; it has no use for the base {}",
                    base.name
                ),
                None => format!("{name} merges differences from a base, and none is given"),
            });
        }
        let n = self.sources.len();
        if self.method == MergeMethod::Slerp && n != 2 {
            return refuse(format!("slerp merges exactly two checkpoints, not {n}"));
        }
        if n < 2 && !self.method.needs_base() || n == 0 {
            return refuse(format!("{name} merges at least two checkpoints, not {n}"));
        }
        if let Some(source) = self.sources.iter().find(|s| !s.weight.is_finite()) {
            return refuse(format!("the weight of {} is not finite", source.name));
        }
        let total: f64 = self.sources.iter().map(|source| source.weight).sum();
        if !self.method.needs_base() && total == 0.0 {
            return refuse("weights whose sum is 0 have no mean".to_string());
        }
        if self.method == MergeMethod::Slerp && self.sources.iter().any(|s| s.weight < 0.0) {
            return refuse(
                "slerp goes from one checkpoint to the other: no weight can be below 0".to_string(),
            );
        }
        if !self.method.scale().is_finite() {
            return refuse("the scale is not finite".to_string());
        }
        if let Some(density) = self.method.density()
            && !(density > 0.0 && density <= 1.0)
        {
            return refuse(format!(
                "a density of {density} cannot be; it is above 0 and at most 1"
            ));
        }
        if let Some(ty) = self.dense
            && ty.is_quantized()
        {
            return refuse(format!(
                "merged weights are stored as F32, F16 or BF16, not as {ty:?}; quantize the result"
            ));
        }
        Ok(())
    }
}
