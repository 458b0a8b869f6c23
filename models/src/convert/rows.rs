//! Tensors that are to be written, as rows of values that are taken from stored tensors when
//! they are needed.

use std::fmt;
use std::io::Write;
use std::path::Path;

use kernels::{WeightType, dequantize, quantize};

use crate::LoadError;
use crate::checkpoint::Tensor;
use crate::gguf::GgufTensor;

/// Values of one thread's share at a time: 4 MiB in f32.
const PIECE: usize = 1 << 20;

/// Where the values of a row lie in one of the stored tensors: `start`, `start + stride`, ...
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) tensor: usize,
    pub(super) start: usize,
    pub(super) stride: usize,
}

/// What knows where each row is.
type Pick<'a> = Box<dyn Fn(usize) -> Place + Send + Sync + 'a>;

/// Rows of values out of stored tensors.
pub(crate) struct Rows<'a> {
    pub(super) n_in: usize,
    pub(super) tensors: Vec<Tensor<'a>>,
    pub(super) pick: Pick<'a>,
    /// Added to every value.
    pub(super) plus: f32,
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("n_in", &self.n_in)
            .field("n_tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Rows<'a> {
    /// All rows of one tensor as they are.
    pub(crate) fn of(tensor: Tensor<'a>, n_in: usize) -> Self {
        Self {
            n_in,
            tensors: vec![tensor],
            pick: Box::new(move |row| Place {
                tensor: 0,
                start: row * n_in,
                stride: 1,
            }),
            plus: 0.0,
        }
    }

    fn fill(&self, row: usize, out: &mut [f32]) {
        let place = (self.pick)(row);
        let tensor = &self.tensors[place.tensor];
        let (ty, width) = (tensor.ty, tensor.ty.block_bytes());
        if place.stride == 1 {
            let first = place.start / ty.block_elements() * width;
            let n_bytes = out.len() / ty.block_elements() * width;
            dequantize(ty, &tensor.bytes[first..first + n_bytes], out);
        } else {
            for (k, out) in out.iter_mut().enumerate() {
                let at = (place.start + k * place.stride) * width;
                let value = &tensor.bytes[at..at + width];
                dequantize(ty, value, std::slice::from_mut(out));
            }
        }
        if self.plus != 0.0 {
            out.iter_mut().for_each(|x| *x += self.plus);
        }
    }

    /// Some rows in a storage type. Blocks may be made of nothing but numbers.
    fn encode(&self, first: usize, n_rows: usize, ty: WeightType) -> Result<Vec<u8>, String> {
        let mut row_values = vec![0.0; self.n_in];
        let row_bytes = self.n_in / ty.block_elements() * ty.block_bytes();
        let mut bytes = vec![0; n_rows * row_bytes];
        for (i, bytes) in bytes.chunks_exact_mut(row_bytes.max(1)).enumerate() {
            self.fill(first + i, &mut row_values);
            if ty.is_quantized()
                && let Some(x) = row_values.iter().find(|x| !x.is_finite())
            {
                return Err(format!("row {}: {x} cannot be quantized", first + i));
            }
            quantize(ty, &row_values, bytes);
        }
        Ok(bytes)
    }
}

/// A tensor to be written, in whatever type.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) ty: WeightType,
    pub(super) rows: Rows<'a>,
    pub(super) n_threads: usize,
}

impl GgufTensor for Planned<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn ty(&self) -> WeightType {
        self.ty
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows are made by several threads and written in order.
    fn write(&self, out: &mut dyn Write) -> Result<(), LoadError> {
        let file = self.rows.tensors.first().map_or(Path::new(""), |t| t.file);
        let fail =
            |message: String| LoadError::new(file, format!("tensor `{}`: {message}", self.name));
        let n_in = self.rows.n_in.max(1);
        let n_rows = self.shape.iter().product::<usize>() / n_in;
        let share = (PIECE / n_in).max(1);
        let mut first = 0;
        while first < n_rows {
            let pieces = std::thread::scope(|scope| {
                let starts = (0..self.n_threads.max(1)).map(|i| first + i * share);
                let workers: Vec<_> = starts
                    .take_while(|start| *start < n_rows)
                    .map(|start| {
                        let n = share.min(n_rows - start);
                        scope.spawn(move || self.rows.encode(start, n, self.ty))
                    })
                    .collect();
                let joined = workers.into_iter().map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| Err("a thread that encodes it failed".to_string()))
                });
                joined.collect::<Result<Vec<_>, _>>()
            });
            for bytes in pieces.map_err(fail)? {
                out.write_all(&bytes)
                    .map_err(|error| fail(format!("cannot be written: {error}")))?;
            }
            first += share * self.n_threads.max(1);
        }
        Ok(())
    }
}
