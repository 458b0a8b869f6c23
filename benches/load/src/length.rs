//! How long prompts and answers are.

use std::str::FromStr;

use crate::rng::Rng;

/// A distribution of lengths in tokens (or of numbers of turns).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// `128`
    Fixed(usize),
    /// `64..256`, both ends included.
    Uniform(usize, usize),
    /// `normal:256,64`: mean and deviation; draws below 1 become 1.
    Normal(f64, f64),
    /// `lognormal:256,0.8`: the median, and the deviation of the logarithm.
    LogNormal(f64, f64),
}

impl Length {
    /// A length, at least 1.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        match *self {
            Self::Fixed(n) => n.max(1),
            Self::Uniform(least, most) => {
                least.max(1) + rng.below((most - least.max(1) + 1) as u64) as usize
            }
            Self::Normal(mean, deviation) => whole(mean + deviation * rng.normal()),
            Self::LogNormal(median, sigma) => whole(median * (sigma * rng.normal()).exp()),
        }
    }
}

fn whole(value: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least one, and a huge one becomes the greatest"
    )]
    let n = value.round().max(1.0) as usize;
    n
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no length: write 128, 64..256, normal:256,64 or lognormal:256,0.8")
        };
        let pair = |words: &str| -> Option<(f64, f64)> {
            let (a, b) = words.split_once(',')?;
            let pair: (f64, f64) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
            (pair.0 > 0.0 && pair.1 >= 0.0 && pair.0.is_finite() && pair.1.is_finite())
                .then_some(pair)
        };
        let found = if let Some(words) = text.strip_prefix("normal:") {
            pair(words).map(|(mean, deviation)| Self::Normal(mean, deviation))
        } else if let Some(words) = text.strip_prefix("lognormal:") {
            pair(words).map(|(median, sigma)| Self::LogNormal(median, sigma))
        } else if let Some((least, most)) = text.split_once("..") {
            match (least.parse(), most.parse()) {
                (Ok(least), Ok(most)) if 1 <= least && least <= most => {
                    Some(Self::Uniform(least, most))
                }
                _ => None,
            }
        } else {
            text.parse().ok().filter(|n| *n > 0).map(Self::Fixed)
        };
        found.ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_drawn() {
        let mut rng = Rng::new(3);
        let uniform: Length = "64..256".parse().unwrap();
        let draws: Vec<usize> = (0..20_000).map(|_| uniform.draw(&mut rng)).collect();
        assert_eq!(draws.iter().min(), Some(&64));
        assert_eq!(draws.iter().max(), Some(&256));
        let log: Length = "lognormal:256,0.8".parse().unwrap();
        let mut draws: Vec<usize> = (0..20_001).map(|_| log.draw(&mut rng)).collect();
        draws.sort_unstable();
        assert!((245..=267).contains(&draws[10_000]), "{}", draws[10_000]);
        assert_eq!("7".parse::<Length>(), Ok(Length::Fixed(7)));
        for wrong in ["0", "9..3", "normal:1", "normal:0,1", "gauss:1,2", "", "-3"] {
            assert!(wrong.parse::<Length>().is_err(), "{wrong}");
        }
    }
}
