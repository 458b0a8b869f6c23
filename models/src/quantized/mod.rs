//! Linear layers that a checkpoint in Hugging Face layout stores quantized.
//!
//! What `config.json` declares says how several tensors make one matrix. All of these formats
//! are whole numbers times scales of groups, or small floats times scales. Where a block format
//! of the kernels says the same exactly, the matrix is held in it; else it is widened when it is
//! loaded, which is reported ([`crate::Model::widened_bytes`]).
//!
//! The formats' definitions: GPTQ as AutoGPTQ and GPTQModel store it, AWQ as AutoAWQ's `gemm`
//! kernels do, `compressed-tensors` 0.9 to 0.12, DeepSeek's block-scaled FP8, and OCP
//! Microscaling (MXFP4).

mod awq;
mod codes;
mod compressed;
mod declared;
mod fp8;
mod gptq;
mod mxfp4;
mod raw;

use kernels::{Numerics, WeightType};
use safetensors::Dtype;

use crate::LoadError;
use crate::lookup::Lookup;

pub(crate) use declared::{Quantization, read_quantization};
pub(crate) use raw::RawTensor;

/// A matrix put together from a quantized layer's tensors, row-major.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) ty: WeightType,
    pub(crate) bytes: Vec<u8>,
    /// No block format is exact: the values were widened.
    pub(crate) is_widened: bool,
}

/// What a layer is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'n> {
    /// Full name of its weight, were it not quantized.
    pub(crate) name: &'n str,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    /// Of how many experts in one tensor, and which.
    pub(crate) expert: Option<(usize, usize)>,
    pub(crate) numerics: Numerics,
}

impl Wanted<'_> {
    /// What stands before the names of the layer's tensors.
    fn layer(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(self.name)
    }

    /// Type of widened values: what their scales were in, or exact.
    fn wide_type(&self) -> WeightType {
        match self.numerics {
            Numerics::Native => WeightType::BF16,
            Numerics::F32 => WeightType::F32,
        }
    }

    /// Values stored as they are.
    fn widened(&self, values: &[f32]) -> Assembled {
        let ty = self.wide_type();
        let mut bytes = vec![0; values.len() * ty.block_bytes()];
        kernels::quantize(ty, values, &mut bytes);
        Assembled {
            ty,
            bytes,
            is_widened: true,
        }
    }
}

/// Puts the layer together if the checkpoint stores it quantized; `None` if it does not.
///
/// # Errors
/// A tensor of the layer is missing or has another shape or type than the method defines.
pub(crate) fn assemble(
    lookup: &Lookup<'_>,
    quantization: &Quantization,
    wanted: Wanted<'_>,
) -> Result<Option<Assembled>, LoadError> {
    match quantization {
        Quantization::Gptq(method) => gptq::assemble(lookup, method, wanted),
        Quantization::Awq(method) => awq::assemble(lookup, method, wanted),
        Quantization::Compressed(method) => compressed::assemble(lookup, method, wanted),
        Quantization::Fp8 => fp8::assemble(lookup, wanted),
        Quantization::Mxfp4 => mxfp4::assemble(lookup, wanted),
    }
}

/// The scales `[n_groups, n_out]` of tensor `name`, output by output.
fn by_output(
    lookup: &Lookup<'_>,
    name: &str,
    n_groups: usize,
    n_out: usize,
) -> Result<Vec<f32>, LoadError> {
    let floats = [Dtype::F16, Dtype::BF16, Dtype::F32];
    let tensor = lookup
        .raw(name)?
        .expect(name, &floats, &[n_groups, n_out])?;
    let scales = tensor.floats(name)?;
    let at = |at: usize| scales[at % n_groups * n_out + at / n_groups];
    Ok((0..n_out * n_groups).map(at).collect())
}
