//! Which machine computes: the CPU or a GPU.

use std::str::FromStr;

use kernels::{CpuOptions, CudaError, CudaOptions, Device};

use crate::settings::Settings;

/// What `--device` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if there is one, else the CPU.
    Auto,
    Cpu,
    /// This GPU, by its number, or none.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let choice = match text.split_once(':') {
            None if text == "auto" => Some(Self::Auto),
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().ok().map(Self::Cuda),
            _ => None,
        };
        choice.ok_or_else(|| "expected auto, cpu, cuda, or cuda:N".to_owned())
    }
}

/// A GPU that was asked for and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--device {asked}: {error}")]
pub struct NoDevice {
    asked: String,
    error: CudaError,
}

/// Takes the devices that the settings name, one unless a model is to be cut into parts, and says
/// which and, if nobody chose it, why.
///
/// # Errors
/// A GPU was asked for by name and cannot be used.
pub fn open(settings: &Settings) -> Result<(Vec<Device>, String), NoDevice> {
    let cpu = || {
        Device::cpu(CpuOptions {
            n_threads: settings.n_threads,
            isa: None,
        })
    };
    let options = |ordinal| CudaOptions {
        ordinal,
        graphs: !settings.enforce_eager,
        low_rank: settings.precision.numerics,
    };
    if settings.tensor_parallel_size > 1 {
        return open_group(settings, options);
    }
    let cuda = |ordinal| Device::cuda(options(ordinal));
    match settings.device {
        DeviceChoice::Cpu => Ok(told(vec![cpu()], "")),
        DeviceChoice::Cuda(ordinal) => match cuda(ordinal) {
            Ok(device) => Ok(told(vec![device], "")),
            Err(error) => Err(NoDevice {
                asked: format!("cuda:{ordinal}"),
                error,
            }),
        },
        DeviceChoice::Auto => Ok(match cuda(0) {
            Ok(device) => told(vec![device], " (--device cpu: not on it)"),
            Err(why) => told(vec![cpu()], &format!(" (no GPU: {why})")),
        }),
    }
}

/// Several GPUs for one model. They were asked for, so that no other will do.
fn open_group(
    settings: &Settings,
    options: impl Fn(usize) -> CudaOptions,
) -> Result<(Vec<Device>, String), NoDevice> {
    let first = match settings.device {
        DeviceChoice::Cuda(ordinal) => ordinal,
        DeviceChoice::Auto | DeviceChoice::Cpu => 0,
    };
    let n = settings.tensor_parallel_size;
    let devices = Device::cuda_group(options(first), n).map_err(|error| NoDevice {
        asked: format!("cuda:{first} --tensor-parallel-size {n}"),
        error,
    })?;
    let group = devices[0].describe_group().unwrap_or_default();
    Ok(told(devices, &format!(" and {} more: {group}", n - 1)))
}

fn told(devices: Vec<Device>, why: &str) -> (Vec<Device>, String) {
    let text = format!("{}{why}", devices[0].describe());
    tracing::info!(device = text, "computing on");
    (devices, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_by_the_letter() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
