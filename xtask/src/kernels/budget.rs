//! What kernels may take, and what their machine code must hold.

use anyhow::{Result, ensure};

use super::figures::{AllFigures, Figures};

/// Bytes of static shared memory that a block may have anywhere.
const MAX_SHARED: u32 = 48 * 1024;

/// Registers that a thread may have: kernels of products run two blocks of 128 threads or more,
/// the others eight warps and more.
fn max_registers(kernel: &str) -> u32 {
    if kernel.ends_with("_wgmma_large") {
        // Three groups of 128 threads.
        168
    } else if kernel.starts_with("attention_") || kernel.ends_with("_large") {
        255
    } else {
        128
    }
}

/// Fails at the first kernel that spills, takes too much or is not what it is meant to be.
pub(super) fn check(all: &AllFigures) -> Result<()> {
    for (kernel, by_arch) in all {
        for (arch, figures) in by_arch {
            let at = format!("{kernel} on sm_{arch}");
            ensure!(figures.spills == 0, "{at} spills {} bytes", figures.spills);
            ensure!(
                figures.stack == 0 || kernel == "route",
                "{at} keeps {} bytes in local memory",
                figures.stack
            );
            ensure!(
                figures.registers <= max_registers(kernel),
                "{at} takes {} registers",
                figures.registers
            );
            ensure!(
                figures.shared <= MAX_SHARED,
                "{at} takes {} bytes of shared memory",
                figures.shared
            );
            check_instructions(kernel, &at, figures)?;
        }
    }
    Ok(())
}

fn check_instructions(kernel: &str, at: &str, figures: &Figures) -> Result<()> {
    if kernel.contains("_wgmma_") {
        ensure!(
            figures.hgmma > 0 && figures.bulk > 0 && figures.ldgsts > 0,
            "{at} lacks products of warp groups or copies"
        );
        return Ok(());
    }
    let is_product = kernel.ends_with("_small") || kernel.ends_with("_large");
    let of_heads = kernel.strip_prefix("attention_");
    let is_attention = of_heads.is_some_and(|rest| rest.parse::<u32>().is_ok());
    if is_product || is_attention {
        ensure!(
            figures.hmma + figures.imma > 0,
            "{at} uses no matrix instructions"
        );
    }
    if kernel.ends_with("_large") || is_attention {
        ensure!(figures.ldgsts > 0, "{at} copies nothing asynchronously");
    }
    Ok(())
}
