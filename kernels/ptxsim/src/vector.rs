//! The two inner loops that gain from vector instructions, chosen at run time.

#![expect(
    unsafe_code,
    reason = "functions compiled for instructions that not every machine has"
)]

/// `c = a * b + c`, each rounded once.
#[inline]
pub(crate) fn fma(a: &[f32; 32], b: &[f32; 32], c: &mut [f32; 32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features were found.
        return unsafe { fma_avx2(a, b, c) };
    }
    fma_plain(a, b, c);
}

#[inline(always)]
fn fma_plain(a: &[f32; 32], b: &[f32; 32], c: &mut [f32; 32]) {
    for lane in 0..32 {
        c[lane] = a[lane].mul_add(b[lane], c[lane]);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma_avx2(a: &[f32; 32], b: &[f32; 32], c: &mut [f32; 32]) {
    fma_plain(a, b, c);
}

/// `c[16][8] += a[16][k] * b[k][8]`, in the order of `k`. Products of the tensor cores' input
/// types are exact in f32, so it does not matter whether multiply and add are one instruction.
pub(crate) fn matrix(a: &[[f32; 32]; 16], b: &[[f32; 8]; 32], k: usize, c: &mut [[f32; 8]; 16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was found.
        return unsafe { matrix_avx2(a, b, k, c) };
    }
    matrix_plain(a, b, k, c);
}

#[inline(always)]
fn matrix_plain(a: &[[f32; 32]; 16], b: &[[f32; 8]; 32], k: usize, c: &mut [[f32; 8]; 16]) {
    for (row, sums) in a.iter().zip(c) {
        let mut total = *sums;
        for (value, column) in row[..k].iter().zip(b) {
            for (sum, other) in total.iter_mut().zip(column) {
                *sum += value * other;
            }
        }
        *sums = total;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn matrix_avx2(a: &[[f32; 32]; 16], b: &[[f32; 8]; 32], k: usize, c: &mut [[f32; 8]; 16]) {
    matrix_plain(a, b, k, c);
}
