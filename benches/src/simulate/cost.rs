//! How long a step takes on a device: from a measurement of this CPU, or from a roofline.

use super::shape::Shape;

/// Seconds of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Cost {
    Measured(Curves),
    Roofline(Roofline),
}

impl Cost {
    pub(crate) fn seconds(&self, shape: &Shape) -> f64 {
        match self {
            Self::Measured(curves) => curves.seconds(shape),
            Self::Roofline(roofline) => roofline.seconds(shape),
        }
    }
}

/// Steps measured on this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curves {
    /// Seconds of the linear layers by tokens, in ascending order of them.
    pub(crate) linear: Vec<(f64, f64)>,
    /// Seconds of the output layer and the draw by rows, likewise.
    pub(crate) samples: Vec<(f64, f64)>,
    pub(crate) per_pair: f64,
    /// Of a key that a row of one token sees, and of one that no other row of the step sees.
    pub(crate) per_key: f64,
    pub(crate) per_distinct: f64,
    /// How much longer a step takes in the server, whose other threads want the same cores.
    pub(crate) slowdown: f64,
    /// Seconds between two steps, and for each sample among them.
    pub(crate) between: f64,
}

impl Curves {
    fn seconds(&self, shape: &Shape) -> f64 {
        let step = at(&self.linear, shape.n_tokens)
            + at(&self.samples, shape.n_samples)
            + self.per_pair * shape.n_pairs
            + self.per_key * shape.n_keys
            + self.per_distinct * shape.n_distinct;
        step * self.slowdown + self.between
    }
}

/// The value at `x` on straight lines between points; beyond the last by its slope, below the
/// first on a line from the origin.
pub(crate) fn at(points: &[(f64, f64)], x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let i = points.partition_point(|point| point.0 < x);
    let (low, high) = match (i, points.len()) {
        (_, 0) => return 0.0,
        (0, _) => return points[0].1,
        (i, n) if i == n && n > 1 => (points[n - 2], points[n - 1]),
        (i, n) if i == n => ((0.0, 0.0), points[n - 1]),
        (i, _) => (points[i - 1], points[i]),
    };
    low.1 + (x - low.0) * (high.1 - low.1) / (high.0 - low.0)
}

/// A model on a device whose limits are known: every step takes as long as its bytes or its
/// operations, whichever is more, at shares of the limits that kernels reach.
#[derive(Clone, Debug)]
pub(crate) struct Roofline {
    pub(crate) bytes_per_s: f64,
    pub(crate) flops_per_s: f64,
    /// Seconds of a step that do nothing of this: launches, sampling, the host.
    pub(crate) own: f64,
    pub(crate) model: ModelShape,
}

/// What of a model decides its cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelShape {
    pub(crate) name: &'static str,
    /// Weights that every token passes, without the embedding.
    pub(crate) n_params: f64,
    /// Of them, those of the output layer, which only sampled rows pass.
    pub(crate) n_output: f64,
    pub(crate) bytes_per_param: f64,
    pub(crate) n_layers: f64,
    /// Query heads times their dimension.
    pub(crate) attention_width: f64,
    /// Bytes of keys and values of one position, in all layers.
    pub(crate) kv_bytes: f64,
}

impl Roofline {
    fn seconds(&self, shape: &Shape) -> f64 {
        let model = &self.model;
        let n_inner = model.n_params - model.n_output;
        // Rows that share keys read them all the same: they are more than the GPU's cache holds.
        // Keys of a chunk are read once for many queries: what is read is small beside products.
        let bytes = (n_inner + model.n_output) * model.bytes_per_param
            + shape.n_keys * model.kv_bytes
            + shape.n_tokens * model.kv_bytes;
        // A product and a sum for each weight, and two of each for a pair of query and key.
        let pairs = shape.n_pairs + shape.n_keys;
        let flops = 2.0 * n_inner * shape.n_tokens
            + 2.0 * model.n_output * shape.n_samples
            + 4.0 * model.n_layers * model.attention_width * pairs;
        (bytes / self.bytes_per_s).max(flops / self.flops_per_s) + self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_through_what_was_measured() {
        let points = [(1.0, 10.0), (4.0, 16.0), (8.0, 40.0)];
        let values = [0.0, 1.0, 2.0, 4.0, 6.0, 10.0].map(|x| at(&points, x));
        assert_eq!(values, [0.0, 10.0, 12.0, 16.0, 28.0, 52.0]);
        let curves = Curves {
            linear: points.to_vec(),
            samples: vec![(1.0, 1.0)],
            per_pair: 0.5,
            per_key: 0.25,
            per_distinct: 0.5,
            slowdown: 2.0,
            between: 3.0,
        };
        let shape = Shape {
            n_tokens: 4.0,
            n_samples: 1.0,
            n_pairs: 2.0,
            n_keys: 8.0,
            n_distinct: 4.0,
        };
        assert_eq!(
            curves.seconds(&shape),
            (16.0 + 1.0 + 1.0 + 2.0 + 2.0) * 2.0 + 3.0
        );
    }

    #[test]
    fn a_roofline_is_memory_first_and_products_later() {
        let roofline = Roofline {
            bytes_per_s: 1e12,
            flops_per_s: 1e14,
            own: 1e-4,
            model: ModelShape {
                name: "x",
                n_params: 1e9,
                n_output: 0.0,
                bytes_per_param: 2.0,
                n_layers: 10.0,
                attention_width: 1000.0,
                kv_bytes: 1e5,
            },
        };
        let tokens = |n_tokens| Shape {
            n_tokens,
            ..Shape::default()
        };
        // Two gigabytes at one terabyte a second, whatever few tokens do.
        assert!((roofline.seconds(&tokens(1.0)) - 2.1e-3).abs() < 1e-6);
        assert!((roofline.seconds(&tokens(64.0)) - 2.1e-3).abs() < 1e-5);
        assert!((roofline.seconds(&tokens(1000.0)) - 20.1e-3).abs() < 1e-6);
        let read = Shape {
            n_tokens: 1.0,
            n_keys: 1e4,
            ..Shape::default()
        };
        assert!((roofline.seconds(&read) - 3.1e-3).abs() < 1e-6);
    }
}
