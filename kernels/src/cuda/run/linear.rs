//! Linear layers and tables on a GPU.

use std::sync::Arc;

use super::driver::{Allocation, text};
use super::gpu::{Gpu, bytes_of};
use super::scratch::Kind;
use super::step::Step;
use crate::cuda::{self, DevicePtr, Ending, Group, LinearLaunch, Rows16, TokensAt};
use crate::memory::OutOfMemory;
use crate::{Numerics, PackError, WeightSource, WeightType};

/// A weight matrix `[n_out, n_in]`, packed as [`cuda::pack`] says.
#[derive(Debug)]
pub(crate) struct CudaLinear {
    gpu: Arc<Gpu>,
    pub(crate) ty: WeightType,
    numerics: Numerics,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    weight: Allocation,
    scales: Allocation,
}

/// What activations become before they meet a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Bf16,
    F16,
    Int8,
}

impl Form {
    pub(super) fn of(ty: WeightType, numerics: Numerics) -> Self {
        match (numerics, ty) {
            (Numerics::F32, _) | (_, WeightType::F32) => Self::F32,
            (_, WeightType::BF16) => Self::Bf16,
            (_, WeightType::F16) => Self::F16,
            _ => Self::Int8,
        }
    }

    /// The image that multiplies weights of `ty` with it.
    fn image(self, ty: WeightType, has_wgmma: bool) -> &'static str {
        match self {
            Self::F32 => "linear_exact",
            Self::Bf16 | Self::F16 if has_wgmma => cuda::WGMMA_IMAGE,
            Self::Bf16 | Self::F16 => "linear_dense",
            Self::Int8 if ty.block_elements() == 32 => "linear_quant32",
            Self::Int8 => "linear_quant256",
        }
    }
}

/// Activations in one form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared {
    pub(super) form: Form,
    pub(super) x: DevicePtr,
    pub(super) meta: DevicePtr,
}

impl CudaLinear {
    /// Packs a source whose sizes have been checked.
    pub(crate) fn pack(
        gpu: &Arc<Gpu>,
        source: &WeightSource<'_>,
        numerics: Numerics,
    ) -> Result<Self, PackError> {
        let packed = cuda::pack(source)?;
        let form = Form::of(source.ty, numerics);
        gpu.prepare(form.image(source.ty, gpu.has_wgmma))?;
        Ok(Self {
            ty: source.ty,
            numerics,
            n_out: source.n_out,
            n_in: source.n_in,
            weight: gpu.upload(&packed.weight)?,
            scales: gpu.upload(&packed.scales)?,
            gpu: gpu.clone(),
        })
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.weight.n_bytes() + self.scales.n_bytes()
    }

    pub(super) fn form(&self) -> Form {
        Form::of(self.ty, self.numerics)
    }

    fn embed(&self, tokens: TokensAt, n_tokens: usize, out: DevicePtr) -> cuda::Launch {
        cuda::embed(
            self.ty,
            DevicePtr(self.weight.at()),
            DevicePtr(self.scales.at()),
            self.n_in,
            tokens,
            n_tokens,
            out,
        )
    }

    /// One row, widened exactly, beside what steps do.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) -> Result<(), String> {
        let number = u32::try_from(row).map_err(|error| error.to_string())?;
        let memory = |refused: OutOfMemory| refused.to_string();
        let token = self.gpu.upload(bytes_of(&[number])).map_err(memory)?;
        let room = self.gpu.driver.alloc(4 * self.n_in).map_err(memory)?;
        let at = DevicePtr(room.at());
        self.gpu
            .run_alone(&self.embed(TokensAt::given(DevicePtr(token.at())), 1, at))?;
        room.read_at(0, out).map_err(text)
    }
}

impl Gpu {
    pub(crate) fn embed(&self, table: &CudaLinear, tokens: &[u32], out: DevicePtr) {
        let mut step = self.step();
        let at = TokensAt::given(step.put_u32(tokens));
        step.push(table.embed(at, tokens.len(), out));
    }

    /// The same, where some tokens are answers of the step started before: those that `drawn` has
    /// a number of.
    pub(crate) fn embed_drawn(
        &self,
        table: &CudaLinear,
        tokens: &[u32],
        drawn: &[Option<u32>],
        out: DevicePtr,
    ) {
        let number = |drawn: &Option<u32>| drawn.map_or(u32::MAX, |number| number);
        let drawn: Vec<u32> = drawn.iter().map(number).collect();
        let mut step = self.step();
        let at = TokensAt {
            given: step.put_u32(tokens),
            drawn: step.put_u32(&drawn),
            answers: step.answers(),
        };
        step.push(table.embed(at, tokens.len(), out));
    }

    /// For each call its weight, bias (or null) and output.
    pub(crate) fn linear(
        &self,
        x: DevicePtr,
        n_rows: usize,
        calls: &[(&CudaLinear, DevicePtr, DevicePtr)],
    ) {
        let mut step = self.step();
        let mut prepared: Vec<Prepared> = Vec::new();
        for &(weight, bias, out) in calls {
            let known = prepared.iter().find(|own| own.form == weight.form());
            let rows = known.copied().unwrap_or_else(|| {
                let rows = step.prepare(weight.form(), x, weight.n_in, n_rows);
                prepared.push(rows);
                rows
            });
            let group = Group {
                weight: DevicePtr(weight.weight.at()),
                scales: DevicePtr(weight.scales.at()),
                bias,
                n_out: weight.n_out,
                n_chunks: weight.n_in.div_ceil(32),
                scale: 1.0,
            };
            let op = LinearLaunch {
                ty: weight.ty,
                x: rows.x,
                meta: rows.meta,
                x_chunks: group.n_chunks,
                ending: Ending::Store,
                rows_in: DevicePtr::NULL,
                rows_out: DevicePtr::NULL,
                out,
                out_stride: weight.n_out,
                n_rows,
                one: group,
                groups: DevicePtr::NULL,
                offsets: DevicePtr::NULL,
                n_groups: 0,
            };
            step.push(match rows.form {
                Form::F32 => cuda::linear_exact(&op, weight.n_in),
                Form::Bf16 | Form::F16 if self.has_wgmma => cuda::linear_wgmma(&op),
                _ => cuda::linear(&op),
            });
        }
    }
}

impl Step {
    /// Converts rows of activations to a form, in memory that the next op uses again.
    pub(super) fn prepare(
        &mut self,
        form: Form,
        x: DevicePtr,
        n_in: usize,
        n_rows: usize,
    ) -> Prepared {
        let padded = n_rows * n_in.next_multiple_of(32);
        let mut prepared = Prepared {
            form,
            x,
            meta: DevicePtr::NULL,
        };
        match form {
            Form::F32 => {}
            Form::Bf16 => {
                prepared.x = self.scratch(Kind::Bf16, 2 * padded);
                self.push(cuda::convert_rows(
                    Rows16::Bf16,
                    x,
                    n_in,
                    n_rows,
                    prepared.x,
                ));
            }
            Form::F16 => {
                prepared.x = self.scratch(Kind::F16, 2 * padded);
                self.push(cuda::convert_rows(Rows16::F16, x, n_in, n_rows, prepared.x));
            }
            Form::Int8 => {
                prepared.x = self.scratch(Kind::Codes, padded);
                prepared.meta = self.scratch(Kind::Meta, padded / 32 * 8);
                let launch = cuda::quantize_rows(x, n_in, n_rows, prepared.x, prepared.meta);
                self.push(launch);
            }
        }
        prepared
    }
}
