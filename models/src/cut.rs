//! Linear layers in parts, for devices that compute a model together.
//!
//! What goes into a block is cut by outputs, what comes out of it by inputs: then each device has
//! whole heads and whole inner values, and what a block adds to the stream is the sum of what
//! the devices have.

use std::ops::Range;
use std::sync::Arc;

use kernels::{Part, WeightType};

use crate::LoadError;
use crate::config::{ModelConfig, QkNorm};
use crate::piece::Piece;
use crate::weights::{Projection, Weights};

/// How a layer is cut: what of its outputs or inputs is this device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Outputs(Range<usize>),
    Inputs(Range<usize>),
}

impl Weights<'_> {
    /// Packs this device's part of a piece of the linear layer `name`. `shape`: of all of the
    /// piece. `bias`: the name of its bias, if it has one; of a layer cut by inputs the first part
    /// has it.
    pub(crate) fn projection_part(
        &self,
        cut: &Cut,
        (name, bias): (&str, Option<&str>),
        piece: &Piece<'_>,
        [n_out, n_in]: [usize; 2],
    ) -> Result<Projection, LoadError> {
        let (weight, bias) = match cut {
            Cut::Outputs(rows) => {
                let row = |i: usize| piece.stored_row(rows.start + i);
                let own = match rows.len() {
                    n if n == n_out => *piece,
                    _ => piece.with_rows(&row),
                };
                let bias = bias.map(|bias| self.bias_of(bias, &own, rows.len()));
                (self.pack(name, &own, [rows.len(), n_in])?, bias)
            }
            Cut::Inputs(columns) => {
                let own = match columns.len() {
                    n if n == n_in => *piece,
                    _ => piece.columns(columns.start, n_in),
                };
                let bias = bias.map(|bias| self.bias_of(bias, piece, n_out));
                (self.pack(name, &own, [n_out, columns.len()])?, bias)
            }
        };
        let has_bias = matches!(cut, Cut::Outputs(_)) || self.part().index == 0;
        let bias = bias.transpose()?.filter(|_| has_bias);
        Ok(Projection {
            weight,
            bias: bias.map(Arc::new),
            cut: (self.part().of > 1).then(|| cut.clone()),
        })
    }
}

/// The inner values of a feed-forward block that are this part's: whole blocks of whatever format
/// the weights have, dealt as equally as can be, the first parts having one more.
pub(crate) fn inner(part: Part, n: usize) -> Range<usize> {
    // Blocks of K-quants, of all other formats, and of none: those that go round.
    let goes_round = |unit: &usize| n.is_multiple_of(*unit) && n / unit >= part.of;
    let unit = [256, 32].into_iter().find(goes_round).unwrap_or(1);
    let n_units = n / unit;
    let before = |index: usize| unit * (index * (n_units / part.of) + index.min(n_units % part.of));
    before(part.index)..before(part.index + 1)
}

/// `ty`, if `n_in` of `n_all` inputs are whole blocks of it.
pub(crate) fn in_whole_blocks(
    ty: WeightType,
    n_in: usize,
    n_all: usize,
) -> Result<WeightType, String> {
    let n_block = ty.block_elements();
    if n_in == n_all || n_in.is_multiple_of(n_block) {
        return Ok(ty);
    }
    Err(format!(
        "{n_in} of {n_all} inputs are no whole blocks of {ty:?}, which has {n_block}"
    ))
}

impl ModelConfig {
    /// What each of `n` devices computes: its heads, and its share of inner values. All else
    /// every device has whole.
    ///
    /// # Errors
    /// The model cannot be cut like that; says what stands against it.
    pub fn part_of(&self, n: usize) -> Result<Self, String> {
        if n == 1 {
            return Ok(self.clone());
        }
        let refuse = |what: &str| Err(format!("cannot be cut into {n} parts: {what}"));
        if self.attention.latent.is_some() {
            return refuse("its attention is latent, which is not cut");
        }
        if self.attention.qk_norm == QkNorm::Whole {
            return refuse("its queries and keys are normed over all heads together");
        }
        let mut part = self.clone();
        part.n_parts = n;
        let heads = [
            ("attention heads", &mut part.n_heads),
            ("key/value heads", &mut part.n_kv_heads),
        ];
        for (what, size) in heads {
            if !size.is_multiple_of(n) {
                return refuse(&format!("{n} does not divide its {size} {what}"));
            }
            *size /= n;
        }
        let mut widths = vec![&mut part.intermediate_size];
        if let Some(experts) = &mut part.experts {
            widths.push(&mut experts.intermediate_size);
            widths.extend(
                experts
                    .shared
                    .as_mut()
                    .map(|own| &mut own.intermediate_size),
            );
        }
        for width in widths {
            let own = |index| inner(Part { index, of: n }, *width).len();
            if own(n - 1) == 0 {
                return refuse(&format!("its {width} inner values are too few"));
            }
            // The widest.
            *width = own(0);
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_values_are_dealt_in_blocks() {
        let parts = |n: usize, of: usize| -> Vec<usize> {
            let part = |index| inner(Part { index, of }, n);
            let mut end = 0;
            for index in 0..of {
                assert_eq!(part(index).start, end);
                end = part(index).end;
            }
            assert_eq!(end, n);
            (0..of).map(|index| part(index).len()).collect()
        };
        assert_eq!(parts(14336, 4), [3584; 4]);
        assert_eq!(parts(11008, 2), [22 * 256, 21 * 256]);
        assert_eq!(parts(160, 2), [96, 64]);
        assert_eq!(parts(256, 2), [128; 2]);
        assert_eq!(parts(7, 3), [3, 2, 2]);
        assert_eq!(parts(160, 1), [160]);
    }

    #[test]
    fn inputs_are_cut_between_blocks() {
        assert_eq!(
            in_whole_blocks(WeightType::Q8_0, 96, 160),
            Ok(WeightType::Q8_0)
        );
        let error = in_whole_blocks(WeightType::Q8_0, 80, 160).unwrap_err();
        assert!(
            error.contains("80 of 160") && error.contains("Q8_0"),
            "{error}"
        );
    }
}
