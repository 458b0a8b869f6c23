//! What the simulated machine is like: read from the environment once, at `cuInit`.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `SIMCUDA_ARCH` | compute capability: 80, 89 or 90 | 90 |
//! | `SIMCUDA_DEVICES` | number of devices, 1 to 8 | 1 |
//! | `SIMCUDA_MEMORY_MIB` | memory of a device | 1024 |
//! | `SIMCUDA_EAGER` | `1`: commands run when they are given, not when they are waited for | 0 |
//! | `SIMCUDA_LENIENT` | `1`: kernels may read global bytes that nothing has written | 0 |
//! | `SIMCUDA_CONTROL` | file of faults to inject | none |
//! | `SIMCUDA_REPORT` | file to which reports of faults are added | none |
//! | `SIMCUDA_TRACE` | file to which a line for each launch is added | none |

use std::path::PathBuf;

/// Settings of the simulated machine.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) arch: u32,
    pub(crate) n_devices: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) eager: bool,
    pub(crate) lenient: bool,
    pub(crate) control: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
}

fn number(name: &str, default: u64, allowed: impl Fn(u64) -> bool) -> Result<u64, String> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default);
    };
    let value = text.parse().ok().filter(|value| allowed(*value));
    value.ok_or_else(|| format!("{name}={text} is not a value it can have"))
}

impl Settings {
    /// Reads the environment; a value that is not understood is an error that names it.
    pub(crate) fn read() -> Result<Self, String> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let flag = |name: &str| Ok::<bool, String>(number(name, 0, |value| value < 2)? == 1);
        Ok(Self {
            arch: number("SIMCUDA_ARCH", 90, |arch| matches!(arch, 80 | 89 | 90))? as u32,
            n_devices: number("SIMCUDA_DEVICES", 1, |n| (1..=8).contains(&n))? as u32,
            memory_bytes: number("SIMCUDA_MEMORY_MIB", 1024, |n| n < 1 << 20)? << 20,
            eager: flag("SIMCUDA_EAGER")?,
            lenient: flag("SIMCUDA_LENIENT")?,
            control: path("SIMCUDA_CONTROL"),
            report: path("SIMCUDA_REPORT"),
            trace: path("SIMCUDA_TRACE"),
        })
    }
}
