//! Counting what memory accesses of a warp cost: sectors of global memory, passes over the
//! banks of shared memory.

use super::counters::Counters;
use crate::registers::lanes;

const N_BANKS: u32 = 32;

/// Counts one global access of `bytes` a lane.
pub(super) fn global(counters: &mut Counters, mask: u32, addresses: &[u64; 32], bytes: usize) {
    let (mut sectors, mut n) = ([0u64; 32], 0);
    for lane in lanes(mask) {
        // An aligned access of at most 16 bytes lies in one sector.
        let sector = addresses[lane] >> 5;
        if n == 0 || sectors[n - 1] != sector && !sectors[..n].contains(&sector) {
            sectors[n] = sector;
            n += 1;
        }
    }
    counters.global_requests += 1;
    counters.global_sectors += n as u64;
    counters.global_bytes += u64::from(mask.count_ones()) * bytes as u64;
    counters.global_ideal += (n_different(mask, addresses) * bytes).div_ceil(32) as u64;
}

/// Different addresses among the lanes'.
fn n_different(mask: u32, addresses: &[u64; 32]) -> usize {
    let (mut n, mut last, mut rising) = (0, 0, true);
    for lane in lanes(mask) {
        rising &= n == 0 || addresses[lane] >= last;
        n += usize::from(n == 0 || addresses[lane] != last);
        last = addresses[lane];
    }
    if rising {
        return n;
    }
    let mut all: Vec<u64> = lanes(mask).map(|lane| addresses[lane]).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// Counts one bulk copy from global memory.
pub(super) fn bulk(counters: &mut Counters, from: u64, len: usize) {
    let end = from + len as u64;
    counters.global_requests += 1;
    counters.global_sectors += end.div_ceil(32) - from / 32;
    counters.global_bytes += len as u64;
    counters.global_ideal += (len as u64).div_ceil(32);
}

/// Counts one shared access of `bytes` a lane. Wide accesses go in phases of 128 bytes.
pub(super) fn shared(counters: &mut Counters, mask: u32, addresses: &[u64; 32], bytes: usize) {
    let per_phase = (128 / bytes.max(4)).min(32);
    for phase in (0..32).step_by(per_phase) {
        let mut words = [0u32; 32];
        let mut n = 0;
        let in_phase = (u32::MAX >> (32 - per_phase)) << phase;
        for lane in lanes(mask & in_phase) {
            for part in 0..bytes.div_ceil(4) {
                words[n] = (addresses[lane] as u32 >> 2) + part as u32;
                n += 1;
            }
        }
        if n > 0 {
            counters.shared_ideal += 1;
            counters.shared_wavefronts += passes(&mut words[..n]);
        }
    }
}

/// Passes for these words: the most different ones in one bank.
fn passes(words: &mut [u32]) -> u64 {
    let mut in_bank = [u32::MAX; N_BANKS as usize];
    let mut conflict = false;
    for word in words.iter() {
        let first = &mut in_bank[(word % N_BANKS) as usize];
        conflict |= *first != u32::MAX && *first != *word;
        *first = *word;
    }
    if !conflict {
        return 1;
    }
    words.sort_unstable();
    let (mut counts, mut last) = ([0u64; N_BANKS as usize], u32::MAX);
    for word in words.iter() {
        if *word != last {
            counts[(word % N_BANKS) as usize] += 1;
        }
        last = *word;
    }
    counts.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wavefronts(stride: u64, bytes: usize) -> (u64, u64) {
        let mut counters = Counters::default();
        let addresses = std::array::from_fn(|lane| lane as u64 * stride);
        shared(&mut counters, u32::MAX, &addresses, bytes);
        (counters.shared_wavefronts, counters.shared_ideal)
    }

    #[test]
    fn banks() {
        assert_eq!(wavefronts(4, 4), (1, 1));
        assert_eq!(wavefronts(0, 4), (1, 1));
        assert_eq!(wavefronts(8, 4), (2, 1));
        assert_eq!(wavefronts(128, 4), (32, 1));
        assert_eq!(wavefronts(132, 4), (1, 1));
        assert_eq!(wavefronts(16, 16), (4, 4));
        assert_eq!(wavefronts(64, 16), (16, 4));
        assert_eq!(wavefronts(80, 16), (4, 4));
    }

    #[test]
    fn sectors() {
        let mut counters = Counters::default();
        global(
            &mut counters,
            u32::MAX,
            &std::array::from_fn(|lane| lane as u64 * 4),
            4,
        );
        assert_eq!((counters.global_sectors, counters.global_bytes), (4, 128));
        global(
            &mut counters,
            u32::MAX,
            &std::array::from_fn(|lane| lane as u64 * 64),
            4,
        );
        assert_eq!(counters.global_sectors, 4 + 32);
        assert_eq!(counters.global_ideal, 4 + 4);
        // Two values, each asked for by every second lane.
        let two = std::array::from_fn(|lane| lane as u64 % 2 * 64);
        global(&mut counters, u32::MAX, &two, 4);
        assert_eq!((counters.global_sectors, counters.global_ideal), (38, 9));
    }
}
