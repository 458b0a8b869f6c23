//! `--tensor-parallel-size`: how many GPUs compute a model together.

use super::SettingsError;
use crate::args::ServeArgs;
use crate::device::DeviceChoice;

/// Refuses no parts, and parts of what is on the CPU.
pub(super) fn check(args: &ServeArgs) -> Result<(), SettingsError> {
    match args.tensor_parallel_size {
        0 => Err(SettingsError::Zero {
            flag: "tensor-parallel-size",
        }),
        n if n > 1 && args.device == DeviceChoice::Cpu => Err(SettingsError::PartsOnCpu { n }),
        _ => Ok(()),
    }
}
