//! Pieces of stored matrices: what a fused projection, an expert or a transposed layer is in a
//! file, and how one matrix is taken out of it. Rows are moved as bytes, so quantized formats
//! can be cut as well, as long as whole rows are taken.

use std::borrow::Cow;

use crate::checkpoint::Tensor;

/// Where the rows of a matrix are in a stored tensor.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Rows (outputs) of the stored matrix.
    n_stored: usize,
    /// Stored row of row `i`; `None`: the same.
    row: Option<&'a dyn Fn(usize) -> usize>,
    /// Of how many experts in one tensor, and which.
    expert: Option<(usize, usize)>,
    /// Stored `[n_in, n_out]`.
    transposed: bool,
    /// First of the columns (inputs) that are taken, and how many are stored; `None`: all.
    columns: Option<(usize, usize)>,
}

impl<'a> Piece<'a> {
    /// All of a matrix of `n_out` rows.
    pub(crate) fn all(n_out: usize) -> Self {
        Self {
            n_stored: n_out,
            row: None,
            expert: None,
            transposed: false,
            columns: None,
        }
    }

    /// Row `i` is row `row(i)` of `n_stored`.
    pub(crate) fn rows(n_stored: usize, row: &'a dyn Fn(usize) -> usize) -> Self {
        Self {
            row: Some(row),
            ..Self::all(n_stored)
        }
    }

    /// The part of one of `n_experts` in a tensor of all.
    pub(crate) fn of_expert(self, n_experts: usize, expert: usize) -> Self {
        Self {
            expert: Some((n_experts, expert)),
            ..self
        }
    }

    /// The same piece, of which row `i` is what was row `row(i)`.
    pub(crate) fn with_rows<'b>(&self, row: &'b dyn Fn(usize) -> usize) -> Piece<'b>
    where
        'a: 'b,
    {
        Piece {
            row: Some(row),
            ..*self
        }
    }

    /// Where row `i` is stored.
    pub(crate) fn stored_row(&self, i: usize) -> usize {
        self.row.map_or(i, |row| row(i))
    }

    /// The same piece, of which columns from `first` on are taken, of `n_stored`.
    pub(crate) fn columns(self, first: usize, n_stored: usize) -> Self {
        Self {
            columns: Some((first, n_stored)),
            ..self
        }
    }

    /// Columns that are stored, if `n_in` are taken.
    pub(crate) fn n_stored_in(&self, n_in: usize) -> usize {
        self.columns.map_or(n_in, |(_, n_stored)| n_stored)
    }

    pub(crate) fn transposed(self, transposed: bool) -> Self {
        Self { transposed, ..self }
    }

    /// `n_in`: columns that are taken.
    pub(crate) fn stored_shape(&self, n_in: usize) -> Vec<usize> {
        let n_in = self.n_stored_in(n_in);
        let experts = self.expert.map(|(n_experts, _)| n_experts);
        let matrix = if self.transposed {
            [n_in, self.n_stored]
        } else {
            [self.n_stored, n_in]
        };
        experts.into_iter().chain(matrix).collect()
    }

    pub(crate) fn stored_bias_shape(&self) -> Vec<usize> {
        let experts = self.expert.map(|(n_experts, _)| n_experts);
        experts.into_iter().chain([self.n_stored]).collect()
    }

    /// The same piece of a matrix that was put together: one expert's, not transposed.
    pub(crate) fn of_assembled(self) -> Self {
        Self {
            expert: None,
            transposed: false,
            ..self
        }
    }

    pub(crate) fn n_stored(&self) -> usize {
        self.n_stored
    }

    pub(crate) fn expert(&self) -> Option<(usize, usize)> {
        self.expert
    }

    /// The bytes of a matrix of `n_out` rows of `n_in` values. The tensor's shape was checked.
    pub(crate) fn take<'t>(
        &self,
        tensor: &Tensor<'t>,
        n_out: usize,
        n_in: usize,
    ) -> Result<Cow<'t, [u8]>, String> {
        let mut bytes = tensor.bytes;
        if let Some((n_experts, expert)) = self.expert {
            let len = bytes.len() / n_experts;
            bytes = &bytes[expert * len..(expert + 1) * len];
        }
        if self.transposed {
            if tensor.ty.is_quantized() {
                return Err(format!("{:?} cannot be transposed", tensor.ty));
            }
            return Ok(Cow::Owned(self.take_columns(
                bytes,
                tensor.ty.block_bytes(),
                n_out,
                n_in,
            )));
        }
        if self.row.is_none() && self.columns.is_none() {
            return Ok(Cow::Borrowed(bytes));
        }
        let row_bytes = bytes.len() / self.n_stored;
        let (skipped, width) = self.within_row(tensor, n_in)?;
        let mut taken = Vec::with_capacity(n_out * width);
        for i in 0..n_out {
            let row = &bytes[self.stored_row(i) * row_bytes..][..row_bytes];
            taken.extend_from_slice(&row[skipped..skipped + width]);
        }
        Ok(Cow::Owned(taken))
    }

    /// Bytes of a row before what is taken, and of what is taken: whole blocks.
    fn within_row(&self, tensor: &Tensor<'_>, n_in: usize) -> Result<(usize, usize), String> {
        let (first, _) = self.columns.unwrap_or((0, n_in));
        let n_block = tensor.ty.block_elements();
        if !first.is_multiple_of(n_block) || !n_in.is_multiple_of(n_block) {
            return Err(format!(
                "its inputs cannot be cut after {first}: {:?} has blocks of {n_block}",
                tensor.ty
            ));
        }
        let bytes_of = |n: usize| n / n_block * tensor.ty.block_bytes();
        Ok((bytes_of(first), bytes_of(n_in)))
    }

    /// Rows out of a transposed matrix of values of `width` bytes.
    fn take_columns(&self, bytes: &[u8], width: usize, n_out: usize, n_in: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(n_out * n_in * width);
        let first = self.columns.map_or(0, |(first, _)| first);
        for i in 0..n_out {
            let column = self.stored_row(i);
            for k in first..first + n_in {
                let at = (k * self.n_stored + column) * width;
                taken.extend_from_slice(&bytes[at..at + width]);
            }
        }
        taken
    }

    /// The values of a bias, stored for all rows (and experts).
    pub(crate) fn take_bias(&self, values: &[f32], n_out: usize) -> Vec<f32> {
        let first = self.expert.map_or(0, |(_, expert)| expert * self.n_stored);
        let taken = (0..n_out).map(|i| values[first + self.stored_row(i)]);
        taken.collect()
    }
}
