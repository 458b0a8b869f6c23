//! Angles of the rotary position embedding.

use crate::config::{RopeConfig, RopeScaling};

/// Frequencies of one model, fixed for the longest sequence that is served.
///
/// All arithmetic is in f32, as transformers does it: the angle of a late position is only as
/// exact as f32 makes it, and weights were trained with those angles.
#[derive(Clone, Debug)]
pub struct Rope {
    inv_freq: Vec<f32>,
    attention_factor: f32,
}

impl Rope {
    /// `max_model_len` matters to dynamic scaling and to LongRope only. In the first, the base depends on the length of
    /// the sequence, and a reference that recomputes everything at each step uses a new base
    /// whenever the sequence has grown. Keys in a cache were rotated once, when they were
    /// written, so that under a moving base a result would depend on when that was. Here one
    /// base holds for all: the unscaled one if no served sequence exceeds the original length,
    /// else the one for the longest that is served. So it is with LongRope's two lists.
    pub fn new(config: &RopeConfig, max_model_len: usize) -> Self {
        let theta = match config.scaling {
            RopeScaling::Dynamic {
                factor,
                original_positions,
            } => dynamic_theta(config, factor, original_positions, max_model_len),
            _ => config.theta,
        };
        let plain: Vec<f32> = (0..config.dim / 2)
            .map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / config.dim as f32))
            .collect();
        let mut attention_factor = 1.0;
        let inv_freq = match &config.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => plain.iter().map(|f| f / *factor as f32).collect(),
            RopeScaling::Divisors(divisors) => {
                plain.iter().zip(divisors).map(|(f, d)| f / d).collect()
            }
            RopeScaling::LongRope {
                short,
                long,
                original_positions,
                attention_factor: factor,
            } => {
                attention_factor = *factor as f32;
                let is_long = max_model_len > *original_positions;
                let divisors = if is_long { long } else { short };
                plain
                    .iter()
                    .zip(divisors)
                    .map(|(f, d)| 1.0 / (d * (1.0 / f)))
                    .collect()
            }
            RopeScaling::Llama3 { .. } => llama3(&plain, &config.scaling),
            RopeScaling::Yarn {
                attention_factor: factor,
                ..
            } => {
                attention_factor = *factor as f32;
                yarn(&plain, config)
            }
        };
        Self {
            inv_freq,
            attention_factor,
        }
    }

    /// Radians per position of each rotated pair.
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// What multiplies cosines and sines.
    pub(crate) fn attention_factor(&self) -> f32 {
        self.attention_factor
    }

    /// Appends the cosines and sines of one position, attention factor included; each list grows
    /// by as many as there are frequencies.
    pub fn extend_angles(&self, position: u32, cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        for &freq in &self.inv_freq {
            let (s, c) = (freq * position as f32).sin_cos();
            cos.push(c * self.attention_factor);
            sin.push(s * self.attention_factor);
        }
    }
}

fn dynamic_theta(config: &RopeConfig, factor: f64, original: usize, longest: usize) -> f64 {
    let stretch = longest.max(original) as f64 / original as f64;
    let dim = config.dim as f64;
    config.theta * (factor * stretch - (factor - 1.0)).powf(dim / (dim - 2.0))
}

/// Short wavelengths stay, long ones are stretched, those between are mixed.
fn llama3(plain: &[f32], scaling: &RopeScaling) -> Vec<f32> {
    let &RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_positions,
    } = scaling
    else {
        unreachable!("called for llama3 only");
    };
    let (factor, original) = (factor as f32, original_positions as f32);
    let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
    plain
        .iter()
        .map(|&freq| {
            let wavelength = 2.0 * std::f32::consts::PI / freq;
            if wavelength < original / high {
                freq
            } else if wavelength > original / low {
                freq / factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * freq / factor + smooth * freq
            }
        })
        .collect()
}

fn yarn(plain: &[f32], config: &RopeConfig) -> Vec<f32> {
    let &RopeScaling::Yarn {
        factor,
        original_positions,
        beta_fast,
        beta_slow,
        truncate,
        ..
    } = &config.scaling
    else {
        unreachable!("called for yarn only");
    };
    // The dimension that turns `n` times over the original length.
    let dimension = |n: f64| {
        let turns = original_positions as f64 / (n * 2.0 * std::f64::consts::PI);
        config.dim as f64 * turns.ln() / (2.0 * config.theta.ln())
    };
    let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let low = low.max(0.0) as f32;
    let mut high = high.min((config.dim - 1) as f64) as f32;
    if low == high {
        high += 0.001;
    }
    plain
        .iter()
        .enumerate()
        .map(|(i, &freq)| {
            let stretched = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            freq / factor as f32 * stretched + freq * (1.0 - stretched)
        })
        .collect()
}
