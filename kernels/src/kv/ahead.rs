//! Memory of the cache on the host, made real before it is used.
//!
//! The system makes memory real when it is first written, huge pages by clearing two MiB at a
//! time. Layers lie apart, so the first block on new pages needs them for the keys and the values
//! of every layer, all in one step (`benches -- interference` shows it as the longest gap). A
//! thread asks for them ahead of use instead.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// The same for the thread: what is beyond is not wanted any more.
    n_wanted: Arc<AtomicUsize>,
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
    /// Begins with the first stripe and the one after it. `n_bytes`: of one stored value.
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
        let n_wanted = Arc::new(AtomicUsize::new(0));
        let (own, limit) = (stripes.clone(), Arc::clone(&n_wanted));
        let thread = std::thread::Builder::new().name("kv".to_owned());
        // Without a thread, memory becomes real when it is used.
        let thread = thread.spawn(move || own.serve(&receiver, &limit)).ok();
        let mut ahead = Self {
            stripes,
            n_asked: 0,
            n_wanted,
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
            self.n_wanted.store(n_wanted, Ordering::Relaxed);
            if let Some(wanted) = &self.wanted {
                // Fails only if the thread has ended; then memory becomes real when it is used.
                wanted.send(self.n_asked..n_wanted).ok();
            }
            self.n_asked = n_wanted;
        }
    }

    /// All of it was given back to the system.
    pub(super) fn forget(&mut self) {
        self.n_asked = 0;
        self.n_wanted.store(0, Ordering::Relaxed);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.forget();
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Stripes {
    /// Ends also where the system cannot be asked.
    fn serve(&self, asked: &Receiver<Range<usize>>, n_wanted: &AtomicUsize) {
        for stripe in asked.iter().flatten() {
            let Range { start, end } = self.blocks(stripe);
            for &layer in &self.layers {
                if stripe >= n_wanted.load(Ordering::Relaxed) {
                    break;
                }
                let at = layer + start * self.block_bytes;
                if end > start && !Pages::populate(at, (end - start) * self.block_bytes) {
                    return;
                }
            }
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
        Pages::resident(pages.address() + range.start, range.len())
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
        // An emulator may take the advice and do nothing.
        if !Pages::populate(values.address(), 1) || resident(&values, 0..1) == 0 {
            eprintln!("not tested: this system cannot be asked for memory");
            return;
        }
        let mut ahead = Ahead::new(shape, 2, &keys, &values);
        let n_of_stripe = ahead.stripes.size * ahead.stripes.block_bytes;
        assert_eq!(n_of_stripe, PAGE);
        // The third stripe is in use, the fourth is ahead.
        ahead.after(2 * ahead.stripes.size + 5);
        let is_real = || {
            let layers = [&keys, &values].map(|pages| [0, layer, 2 * layer].map(|at| (pages, at)));
            let mut layers = layers.into_iter().flatten();
            layers.all(|(pages, at)| resident(pages, at..at + 4 * PAGE) == 4 * PAGE)
        };
        let begin = std::time::Instant::now();
        while !is_real() && begin.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
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
