//! Random numbers that depend on nothing but what they are for.

/// A number in `[0, 1)` for the draw of one token.
///
/// Counter based: there is no state to advance, so that a draw repeated after a preemption, or
/// in another batch, is the same draw. The three inputs are mixed one after the other by the
/// finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014), each offset by the golden-ratio increment of that generator.
pub(super) fn uniform(seed: u64, choice: u32, n_generated: u32) -> f64 {
    let hash = mix(mix(mix(seed) ^ u64::from(choice)) ^ u64::from(n_generated));
    // The 53 upper bits are what an f64 holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
