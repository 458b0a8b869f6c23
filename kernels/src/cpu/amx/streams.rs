//! Memory that is needed next, asked for in several places at a time.

use crate::cpu::simd::prefetch_later;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Pieces of memory that are walked side by side: a processor fetches ahead within a page only, so
/// that one stream of memory brings a core half of what four bring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams<'a> {
    pieces: [&'a [u8]; 8],
    at: usize,
    /// Bytes of the longest piece.
    len: usize,
    /// Lines of each piece that are asked for at once.
    n_at_once: usize,
}

impl<'a> Streams<'a> {
    /// `pieces` within `n_calls` calls of [`Streams::bring`].
    pub(super) fn new(pieces: [&'a [u8]; 8], n_calls: usize) -> Self {
        let len = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
        Self {
            pieces,
            at: 0,
            len,
            n_at_once: len.div_ceil(LINE).div_ceil(n_calls.max(1)),
        }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn bring(&mut self) {
        for _ in 0..self.n_at_once {
            if self.at >= self.len {
                return;
            }
            for piece in self.pieces {
                if self.at < piece.len() {
                    prefetch_later(piece.as_ptr().wrapping_add(self.at));
                }
            }
            self.at += LINE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pieces_come_within_the_calls() {
        let bytes = [0; 1000];
        let mut pieces = [&bytes[..0]; 8];
        pieces[1] = &bytes;
        pieces[4] = &bytes[..70];
        for n_calls in [1, 3, 15, 16, 40] {
            let mut streams = Streams::new(pieces, n_calls);
            (0..n_calls).for_each(|_| streams.bring());
            assert!(streams.at >= bytes.len(), "{n_calls} calls");
        }
        Streams::new([&[]; 8], 0).bring();
    }
}
