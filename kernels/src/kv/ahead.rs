//! Memory of the cache on the host, made real before it is used.
//!
//! The system makes memory real when it is first written, huge pages by clearing two MiB at a
//! time. Layers lie apart, so the first block on new pages needs them for the keys and the values
//! of every layer, which held up a step of a small model by a third of a second. A thread asks
//! for them ahead of use instead.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::KvShape;
use crate::memory::Pages;

/// A huge page.
const PAGE: usize = 2 << 20;

/// Keys and values of all layers. Must end before the memory does: fields are dropped in order.
#[derive(Debug)]
pub(super) struct Ahead {
    stripes: Stripes,
    /// Stripes that were asked for.
    n_asked: usize,
    /// To the thread: stripes to make real. `None` when this is dropped, or if there is no thread.
    wanted: Option<Sender<Range<usize>>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the memory is, cut into runs of blocks that fill a huge page in each layer.
#[derive(Clone, Debug)]
struct Stripes {
    n_blocks: usize,
    /// Blocks of a stripe.
    size: usize,
    /// Bytes of the keys (or values) of a block in one layer.
    block_bytes: usize,
    /// Addresses of the keys and the values of all layers.
    layers: Vec<usize>,
}

impl Ahead {
    /// Begins with the first stripe. `n_bytes`: of one stored value.
    pub(super) fn new(shape: KvShape, n_bytes: usize, keys: &Pages, values: &Pages) -> Self {
        let block_bytes = shape.block_size * shape.n_kv_heads * shape.head_dim * n_bytes;
        let layer_bytes = shape.n_blocks * block_bytes;
        let layers = [keys, values].into_iter().flat_map(|pages| {
            (0..shape.n_layers).map(|layer| pages.address() + layer * layer_bytes)
        });
        let stripes = Stripes {
            n_blocks: shape.n_blocks,
            size: PAGE.div_ceil(block_bytes.max(1)),
            block_bytes,
            layers: layers.collect(),
        };
        let (wanted, receiver) = channel();
        let own = stripes.clone();
        let thread = std::thread::Builder::new().name("kv".to_owned());
        // Without a thread, memory becomes real when it is used.
        let thread = thread.spawn(move || own.serve(&receiver)).ok();
        let mut ahead = Self {
            stripes,
            n_asked: 0,
            wanted: thread.is_some().then_some(wanted),
            thread,
        };
        ahead.after(0);
        ahead
    }

    /// Asks for what comes after a block that is in use.
    pub(super) fn after(&mut self, block: usize) {
        let n_wanted = block / self.stripes.size + 2;
        if n_wanted > self.n_asked {
            if let Some(wanted) = &self.wanted {
                // Fails only if the thread has panicked; then memory becomes real when it is used.
                wanted.send(self.n_asked..n_wanted).ok();
            }
            self.n_asked = n_wanted;
        }
    }

    /// All of it was given back to the system.
    pub(super) fn forget(&mut self) {
        self.n_asked = 0;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Stripes {
    fn serve(&self, wanted: &Receiver<Range<usize>>) {
        for stripe in wanted.iter().flatten() {
            self.populate(stripe);
        }
    }

    fn populate(&self, stripe: usize) {
        let Range { start, end } = self.blocks(stripe);
        for &layer in &self.layers {
            let at = layer + start * self.block_bytes;
            Pages::populate(at, (end - start) * self.block_bytes);
        }
    }

    fn blocks(&self, stripe: usize) -> Range<usize> {
        let first = (stripe * self.size).min(self.n_blocks);
        first..(first + self.size).min(self.n_blocks)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Bytes of a range that are in memory.
    fn resident(pages: &Pages, range: Range<usize>) -> usize {
        let mut found = vec![0_u8; range.len().div_ceil(4096)];
        Pages::resident(pages.address() + range.start, range.len(), &mut found);
        4096 * found.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn a_stripe_ahead_of_use_is_real_in_every_layer() {
        let shape = KvShape {
            n_layers: 3,
            n_blocks: 4096,
            block_size: 16,
            n_kv_heads: 2,
            head_dim: 64,
        };
        let layer = 4096 * 16 * 2 * 64 * 2;
        let (keys, values) = (
            Pages::zeroed(3 * layer).unwrap(),
            Pages::zeroed(3 * layer).unwrap(),
        );
        let mut ahead = Ahead::new(shape, 2, &keys, &values);
        let n_of_stripe = ahead.stripes.size * ahead.stripes.block_bytes;
        assert_eq!(n_of_stripe, PAGE);
        // The third stripe is in use, the fourth is ahead.
        ahead.after(2 * ahead.stripes.size + 5);
        drop(ahead);
        for pages in [&keys, &values] {
            for at in [0, layer, 2 * layer] {
                assert_eq!(resident(pages, at..at + 4 * PAGE), 4 * PAGE);
                // What is on the same huge page as the end may be real as well.
                assert!(resident(pages, at + 5 * PAGE..at + layer) == 0);
            }
        }
    }
}
