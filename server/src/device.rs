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

/// Takes a device, and says which and, if nobody chose it, why.
///
/// # Errors
/// A GPU was asked for by name and cannot be used.
pub fn open(settings: &Settings) -> Result<(Device, String), NoDevice> {
    let cpu = || {
        Device::cpu(CpuOptions {
            n_threads: settings.n_threads,
            isa: None,
        })
    };
    let cuda = |ordinal| {
        Device::cuda(CudaOptions {
            ordinal,
            graphs: !settings.enforce_eager,
            low_rank: settings.precision.numerics,
        })
    };
    match settings.device {
        DeviceChoice::Cpu => Ok(told(cpu(), "")),
        DeviceChoice::Cuda(ordinal) => match cuda(ordinal) {
            Ok(device) => Ok(told(device, "")),
            Err(error) => Err(NoDevice {
                asked: format!("cuda:{ordinal}"),
                error,
            }),
        },
        DeviceChoice::Auto => Ok(match cuda(0) {
            Ok(device) => told(device, " (--device cpu: not on it)"),
            Err(why) => told(cpu(), &format!(" (no GPU: {why})")),
        }),
    }
}

fn told(device: Device, why: &str) -> (Device, String) {
    let text = format!("{}{why}", device.describe());
    tracing::info!(device = text, "computing on");
    (device, text)
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
