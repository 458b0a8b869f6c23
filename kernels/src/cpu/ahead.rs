//! Memory that the next op reads, brought near while this one computes.

use super::simd::prefetch_later;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// A share of some memory, as lines that have not been asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead<'a> {
    pieces: &'a [&'a [u8]],
    /// Bytes of the first piece that are done.
    at: usize,
    /// Lines that are left.
    pub(crate) n_lines: usize,
    /// Lines that are asked for at once.
    pub(crate) n_at_once: usize,
}

impl<'a> Ahead<'a> {
    /// The `i`th of `n` equal shares of `pieces`.
    pub(crate) fn new(mut pieces: &'a [&'a [u8]], i: usize, n: usize) -> Self {
        let n_lines: usize = pieces.iter().map(|piece| piece.len().div_ceil(LINE)).sum();
        let (first, end) = (n_lines * i / n, n_lines * (i + 1) / n);
        let mut skipped = first;
        while let Some((piece, rest)) = pieces.split_first()
            && skipped >= piece.len().div_ceil(LINE)
        {
            skipped -= piece.len().div_ceil(LINE);
            pieces = rest;
        }
        Self {
            pieces,
            at: skipped * LINE,
            n_lines: end - first,
            n_at_once: 0,
        }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(crate) fn bring(&mut self) {
        for _ in 0..self.n_at_once.min(self.n_lines) {
            let Some((piece, rest)) = self.pieces.split_first() else {
                return;
            };
            prefetch_later(piece.as_ptr().wrapping_add(self.at));
            self.n_lines -= 1;
            self.at += LINE;
            if self.at >= piece.len() {
                self.pieces = rest;
                self.at = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_every_line_once() {
        let sizes = [1, 64, 65, 0, 1000, 128];
        let bytes = sizes.map(|n| vec![0; n]);
        let pieces: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let pieces: Vec<&[u8]> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        for n in [1, 3, 16, 50] {
            let mut n_seen = 0;
            for i in 0..n {
                let mut ahead = Ahead::new(&pieces, i, n);
                n_seen += ahead.n_lines;
                ahead.n_at_once = 2;
                while ahead.n_lines > 0 {
                    let before = ahead.n_lines;
                    ahead.bring();
                    assert!(ahead.n_lines < before, "share {i} of {n} stands still");
                }
            }
            assert_eq!(n_seen, 1 + 1 + 2 + 16 + 2);
        }
    }
}
