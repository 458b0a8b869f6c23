//! Rotary position embedding, as configured.

/// How positions rotate the heads.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Leading values of each head that are rotated.
    pub dim: usize,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for sequences longer than those first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        factor: f64,
    },
    /// The base grows with the length of the sequence beyond `original_positions`.
    Dynamic {
        factor: f64,
        original_positions: usize,
    },
    /// Low frequencies are divided by `factor`, high ones kept, with a ramp between
    /// (<https://arxiv.org/abs/2309.00071>).
    Yarn {
        factor: f64,
        original_positions: usize,
        beta_fast: f64,
        beta_slow: f64,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Round the ends of the ramp to whole dimensions.
        truncate: bool,
    },
    /// Llama 3.1's: as YaRN's, with the ramp over wavelengths.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_positions: usize,
    },
    /// Each frequency is divided by a number of its own, from one list or the other: `long` when
    /// sequences may be longer than `original_positions`
    /// (<https://arxiv.org/abs/2402.13753>).
    LongRope {
        short: Vec<f32>,
        long: Vec<f32>,
        original_positions: usize,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// Each frequency is divided by a number of its own: the `rope_freqs.weight` of GGUF files.
    Divisors(Vec<f32>),
}

impl RopeConfig {
    /// Refuses numbers that would give no finite angles.
    pub(super) fn check(&self) -> Result<(), String> {
        positive("rope theta", self.theta)?;
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("rope scaling factor", *factor),
            RopeScaling::Dynamic {
                factor,
                original_positions,
            } => {
                positive("rope scaling factor", *factor)?;
                if self.dim <= 2 {
                    return Err(format!(
                        "dynamic rope scaling needs more than 2 rotated values, found {}",
                        self.dim
                    ));
                }
                positive("rope scaling original length", *original_positions as f64)
            }
            RopeScaling::Yarn {
                factor,
                original_positions,
                beta_fast,
                beta_slow,
                attention_factor,
                ..
            } => {
                if self.theta <= 1.0 {
                    return Err(format!(
                        "yarn needs a rope theta over 1, found {}",
                        self.theta
                    ));
                }
                positive("rope scaling factor", *factor)?;
                positive("rope scaling beta_fast", *beta_fast)?;
                positive("rope scaling beta_slow", *beta_slow)?;
                positive("rope scaling attention factor", *attention_factor)?;
                positive("rope scaling original length", *original_positions as f64)
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => {
                positive("rope scaling factor", *factor)?;
                positive("rope scaling low_freq_factor", *low_freq_factor)?;
                if high_freq_factor <= low_freq_factor {
                    return Err(format!(
                        "rope scaling high_freq_factor {high_freq_factor} is not over \
                         low_freq_factor {low_freq_factor}"
                    ));
                }
                positive("rope scaling high_freq_factor", *high_freq_factor)?;
                positive("rope scaling original length", *original_positions as f64)
            }
            RopeScaling::LongRope {
                short,
                long,
                attention_factor,
                ..
            } => {
                for (name, factors) in [("short_factor", short), ("long_factor", long)] {
                    self.check_divisors(name, factors)?;
                }
                positive("rope scaling attention factor", *attention_factor)
            }
            RopeScaling::Divisors(divisors) => self.check_divisors("rope_freqs.weight", divisors),
        }
    }
}

impl RopeConfig {
    fn check_divisors(&self, name: &str, divisors: &[f32]) -> Result<(), String> {
        if divisors.len() != self.dim / 2 {
            return Err(format!(
                "{name}: expected {} numbers, found {}",
                self.dim / 2,
                divisors.len()
            ));
        }
        divisors
            .iter()
            .try_for_each(|x| positive(name, f64::from(*x)))
    }
}

fn positive(what: &str, x: f64) -> Result<(), String> {
    if x.is_finite() && x > 0.0 {
        Ok(())
    } else {
        Err(format!("{what}: {x} is not a positive number"))
    }
}

/// LongRope's attention temperature for a stretch of `factor`.
pub(super) fn longrope_mscale(factor: f64, original_positions: usize) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        (1.0 + factor.ln() / (original_positions as f64).ln()).sqrt()
    }
}

/// YaRN's attention temperature for a stretch of `factor`, as a factor of cosines and sines.
pub(crate) fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * mscale * factor.ln() + 1.0
    }
}
