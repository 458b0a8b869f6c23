//! The arithmetic of one tensor.

use super::method::MergeMethod;
use super::source::{Source, widen};
use super::sparse::{Dropout, Sparse, Trim, size};
use crate::quantized::RawTensor;

/// Values that are widened at a time.
const CHUNK: usize = 1 << 16;

/// Tensors of one name, and how they are merged.
#[derive(Debug)]
pub(super) struct Tensors<'a> {
    name: &'a str,
    sources: Vec<(RawTensor<'a>, f64)>,
    base: Option<RawTensor<'a>>,
    method: MergeMethod,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(
        name: &'a str,
        sources: &'a [Source<'a>],
        base: Option<&'a Source<'a>>,
        method: MergeMethod,
    ) -> Self {
        let weighted = |source: &'a Source<'a>| (source.tensor(name), source.given.weight);
        Self {
            name,
            sources: sources.iter().map(weighted).collect(),
            base: base.map(|base| base.tensor(name)),
            method,
        }
    }

    /// Tensor that the result has the type and shape of.
    pub(super) fn first(&self) -> RawTensor<'a> {
        self.base.unwrap_or(self.sources[0].0)
    }

    fn n_values(&self) -> usize {
        self.first().shape.iter().product()
    }

    /// Merges all values and hands them over, chunk by chunk in their order.
    pub(super) fn merge(&self, mut then: impl FnMut(&[f64])) {
        match &self.base {
            Some(base) => self.merge_differences(base, &mut then),
            None => self.merge_values(&self.factors(), &mut then),
        }
    }

    /// What each source is multiplied by, where nothing else is done.
    fn factors(&self) -> Vec<f64> {
        let total: f64 = self.sources.iter().map(|(_, weight)| weight).sum();
        let shares = self.sources.iter().map(|(_, weight)| weight / total);
        let shares: Vec<f64> = shares.collect();
        match self.method {
            MergeMethod::Slerp => self.along_the_circle(shares[1]).to_vec(),
            _ => shares,
        }
    }

    /// Factors of two tensors, `t` of the way from one to the other. Tensors that point the same
    /// way, or have no direction, are mixed in a line.
    fn along_the_circle(&self, t: f64) -> [f64; 2] {
        // Nearer than this, the quotient below is no more than rounding.
        const PARALLEL: f64 = 0.9995;
        let (mut dot, mut squares) = (0.0, [0.0; 2]);
        self.each_chunk(|_, values| {
            for (a, b) in values[0].iter().zip(&values[1]) {
                dot += a * b;
                squares[0] += a * a;
                squares[1] += b * b;
            }
        });
        let cosine = dot / (squares[0].sqrt() * squares[1].sqrt());
        if !cosine.is_finite() || cosine.abs() > PARALLEL {
            return [1.0 - t, t];
        }
        let angle = cosine.acos();
        let sine = angle.sin();
        [((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine]
    }

    fn merge_values(&self, factors: &[f64], then: &mut impl FnMut(&[f64])) {
        let mut sum = Vec::new();
        self.each_chunk(|_, values| {
            sum.clear();
            sum.resize(values[0].len(), 0.0);
            for (values, factor) in values.iter().zip(factors) {
                for (sum, x) in sum.iter_mut().zip(values) {
                    *sum += factor * x;
                }
            }
            then(&sum);
        });
    }

    fn merge_differences(&self, base: &RawTensor<'_>, then: &mut impl FnMut(&[f64])) {
        let mut sparse: Vec<Sparse> = (0..self.sources.len())
            .map(|source| self.sparse(source, base))
            .collect();
        let weights: Vec<f64> = self.sources.iter().map(|(_, weight)| *weight).collect();
        let scale = self.method.scale();
        let (mut stems, mut merged) = (Vec::new(), Vec::new());
        self.each_chunk(|first, values| {
            widen(base, first..first + values[0].len(), &mut stems);
            for (values, sparse) in values.iter_mut().zip(&mut sparse) {
                subtract(values, &stems);
                sparse.apply(first, values);
            }
            merged.clear();
            for (i, stem) in stems.iter().enumerate() {
                let weighted = values.iter().zip(&weights).map(|(v, w)| (v[i], *w));
                let change = if self.method.elects() {
                    elected_mean(weighted)
                } else {
                    weighted.map(|(x, weight)| weight * x).sum()
                };
                merged.push(stem + scale * change);
            }
            then(&merged);
        });
    }

    /// What is done to the differences of a source.
    fn sparse(&self, source: usize, base: &RawTensor<'_>) -> Sparse {
        match self.method {
            MergeMethod::Ties { density, .. } => {
                let tensor = &self.sources[source].0;
                let mut sizes = Vec::with_capacity(self.n_values());
                let (mut values, mut stems) = (Vec::new(), Vec::new());
                for first in (0..self.n_values()).step_by(CHUNK) {
                    let range = first..self.n_values().min(first + CHUNK);
                    widen(tensor, range.clone(), &mut values);
                    widen(base, range, &mut stems);
                    subtract(&mut values, &stems);
                    sizes.extend(values.iter().map(|x| size(*x)));
                }
                Sparse::Trim(Trim::new(&mut sizes, density))
            }
            MergeMethod::Dare { density, seed, .. }
            | MergeMethod::DareTies { density, seed, .. } => {
                Sparse::Dropout(Dropout::new(density, seed, source, self.name))
            }
            MergeMethod::Linear | MergeMethod::Slerp | MergeMethod::TaskArithmetic { .. } => {
                Sparse::All
            }
        }
    }

    /// Calls with the place of the first value of a chunk, and the values of each source.
    fn each_chunk(&self, mut then: impl FnMut(usize, &mut [Vec<f64>])) {
        let n_values = self.n_values();
        let mut values = vec![Vec::new(); self.sources.len()];
        for first in (0..n_values).step_by(CHUNK) {
            for ((tensor, _), values) in self.sources.iter().zip(&mut values) {
                widen(tensor, first..n_values.min(first + CHUNK), values);
            }
            then(first, &mut values);
        }
    }
}

fn subtract(values: &mut [f64], from: &[f64]) {
    for (x, stem) in values.iter_mut().zip(from) {
        *x -= stem;
    }
}

/// Of differences and their weights: the mean of those that have the sign of the weighted sum.
fn elected_mean(differences: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let total: f64 = differences.clone().map(|(x, weight)| weight * x).sum();
    let agrees = |x: f64, weight: f64| weight * x * total > 0.0;
    let (mut sum, mut weights) = (0.0, 0.0);
    for (x, weight) in differences {
        if agrees(x, weight) {
            sum += weight * x;
            weights += weight.abs();
        }
    }
    if weights == 0.0 { 0.0 } else { sum / weights }
}

#[cfg(test)]
mod tests {
    use super::elected_mean;

    #[test]
    fn the_heavier_sign_is_elected() {
        let mean = |differences: &[(f64, f64)]| elected_mean(differences.iter().copied());
        assert_eq!(mean(&[(3.0, 1.0), (-1.0, 1.0), (1.0, 1.0)]), 2.0);
        assert_eq!(mean(&[(3.0, 1.0), (-1.0, 5.0), (0.0, 1.0)]), -1.0);
        assert_eq!(mean(&[(2.0, 1.0), (4.0, 3.0)]), 3.5);
        assert_eq!(mean(&[(2.0, 1.0), (-2.0, 1.0)]), 0.0);
        assert_eq!(mean(&[(0.0, 1.0)]), 0.0);
        // A negative weight turns a difference round.
        assert_eq!(mean(&[(2.0, -1.0), (-1.0, 1.0)]), -1.5);
    }
}
