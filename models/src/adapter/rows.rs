//! Adapters in a step: which rows use which, and what that changes.

use std::cell::RefCell;
use std::sync::Arc;

use kernels::{Buffer, Device, LinearCall, LinearDelta, Norm, RowGroups};

use super::stack::{AdapterStack, OwnNorm};

/// The adapters of one step. Kept from step to step, so that lists grow to their largest once.
#[derive(Debug)]
pub(crate) struct StepAdapters {
    stacks: Vec<Arc<AdapterStack>>,
    group_of_row: Vec<Option<usize>>,
    groups: RowGroups,
    scratch: RefCell<Scratch>,
}

/// Rows taken apart from the others for a while.
#[derive(Debug)]
struct Scratch {
    rows: Buffer,
    out: Buffer,
    weighted: Vec<(u32, f32)>,
}

impl StepAdapters {
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            stacks: Vec::new(),
            group_of_row: Vec::new(),
            groups: RowGroups::default(),
            scratch: RefCell::new(Scratch {
                rows: Buffer::zeros(device, 0),
                out: Buffer::zeros(device, 0),
                weighted: Vec::new(),
            }),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.stacks.clear();
        self.group_of_row.clear();
    }

    /// The next `n_rows` rows use this stack. Rows of one stack, wherever they are, become one
    /// group.
    pub(crate) fn push(&mut self, stack: Option<&Arc<AdapterStack>>, n_rows: usize) {
        let group = stack.map(|stack| {
            let known = self.stacks.iter().position(|own| Arc::ptr_eq(own, stack));
            known.unwrap_or_else(|| {
                self.stacks.push(stack.clone());
                self.stacks.len() - 1
            })
        });
        self.group_of_row.extend(std::iter::repeat_n(group, n_rows));
    }

    /// Deals out the rows that were pushed.
    pub(crate) fn finish(&mut self) {
        let groups = self.group_of_row.iter().copied();
        self.groups.fill(self.stacks.len(), groups);
    }

    pub(crate) fn rows(&self) -> AdapterRows<'_> {
        AdapterRows {
            step: self,
            groups: &self.groups,
        }
    }
}

/// Rows of a step with their adapters: all of them, or some that were gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdapterRows<'a> {
    step: &'a StepAdapters,
    groups: &'a RowGroups,
}

/// Rows that were normed apart: which, and how wide.
#[derive(Debug, Default)]
pub(crate) struct OwnRows {
    rows: Vec<u32>,
    width: usize,
}

impl<'a> AdapterRows<'a> {
    /// The step's rows `rows`, gathered in this order. `groups` is scratch.
    pub(crate) fn of_rows<'b>(self, rows: &[u32], groups: &'b mut RowGroups) -> AdapterRows<'b>
    where
        'a: 'b,
    {
        let of_row = &self.step.group_of_row;
        let group = |row: &u32| of_row.get(*row as usize).copied().flatten();
        groups.fill(self.step.stacks.len(), rows.iter().map(group));
        AdapterRows {
            step: self.step,
            groups,
        }
    }

    /// Stacks in use and their rows.
    pub(crate) fn stacks(self) -> impl Iterator<Item = (&'a AdapterStack, &'a [u32])> {
        let stacks = self.step.stacks.iter().enumerate();
        stacks
            .map(move |(group, stack)| (&**stack, self.groups.rows(group)))
            .filter(|(_, rows)| !rows.is_empty())
    }

    /// The linear layers of a site with what adapters add to them.
    pub(crate) fn linear_into(
        self,
        device: &Device,
        x: &Buffer,
        n_rows: usize,
        site: usize,
        calls: &mut [LinearCall<'_>],
    ) {
        if self.step.stacks.is_empty() {
            return device.linear_into(x, n_rows, calls);
        }
        let stacks = self.step.stacks.iter();
        let deltas: Vec<Option<&LinearDelta>> = stacks
            .map(|stack| stack.site(site).map(|s| &s.delta))
            .collect();
        if deltas.iter().all(Option::is_none) {
            return device.linear_into(x, n_rows, calls);
        }
        debug_assert_eq!(n_rows, self.groups.n_rows(), "every row was dealt out");
        device.linear_with_deltas_into(x, self.groups, &deltas, calls);
        self.add_replacements(device, x, site, calls);
    }

    /// Matrices that stand in whole for the model's. What those gave has been taken away.
    fn add_replacements(
        self,
        device: &Device,
        x: &Buffer,
        site: usize,
        calls: &mut [LinearCall<'_>],
    ) {
        for (stack, rows) in self.stacks() {
            let replacements = stack.site(site).map_or(&[][..], |site| &site.replacements);
            for replacement in replacements {
                let mut scratch = self.step.scratch.borrow_mut();
                let Scratch {
                    rows: gathered,
                    out,
                    weighted,
                } = &mut *scratch;
                let weight = &replacement.weight;
                grow(device, gathered, rows.len() * weight.n_in());
                grow(device, out, rows.len() * weight.n_out());
                device.gather_rows_into(x, weight.n_in(), rows, gathered);
                let call = LinearCall {
                    weight,
                    bias: None,
                    out,
                };
                device.linear_into(gathered, rows.len(), &mut [call]);
                weighted.clear();
                weighted.extend(rows.iter().map(|&row| (row, replacement.share)));
                let to = &mut *calls[replacement.output].out;
                device.scatter_add_rows(out, weight.n_out(), weighted, to);
            }
        }
    }

    /// Norms the rows of `x` whose adapter has norm `id` with its own weights, apart from the
    /// others. `n_rows` rows of `width`: a whole number for each row of the step.
    pub(crate) fn own_norms<'n>(
        self,
        device: &Device,
        id: usize,
        x: &Buffer,
        (width, n_rows): (usize, usize),
        norm: impl Fn(&'a OwnNorm) -> Norm<'n>,
    ) -> OwnRows {
        let mut own = OwnRows::default();
        if self
            .step
            .stacks
            .iter()
            .all(|stack| stack.norm(id).is_none())
        {
            return own;
        }
        let heads = n_rows / self.groups.n_rows().max(1);
        own.width = heads * width;
        let mut scratch = self.step.scratch.borrow_mut();
        let Scratch {
            rows: gathered,
            out,
            ..
        } = &mut *scratch;
        grow(device, out, n_rows * width);
        for (stack, rows) in self.stacks() {
            let Some(norm_of_stack) = stack.norm(id) else {
                continue;
            };
            grow(device, gathered, rows.len() * own.width);
            device.gather_rows_into(x, own.width, rows, gathered);
            device.norm_in_place(gathered, norm(norm_of_stack), rows.len() * heads);
            device.scatter_rows(gathered, own.width, rows, out);
            own.rows.extend(rows);
        }
        own.rows.sort_unstable();
        own
    }

    /// Puts rows that were normed apart to their places in `out`.
    pub(crate) fn put_back(self, device: &Device, own: OwnRows, out: &mut Buffer) {
        if own.rows.is_empty() {
            return;
        }
        let mut scratch = self.step.scratch.borrow_mut();
        let Scratch {
            rows: gathered,
            out: normed,
            ..
        } = &mut *scratch;
        grow(device, gathered, own.rows.len() * own.width);
        device.gather_rows_into(normed, own.width, &own.rows, gathered);
        device.scatter_rows(gathered, own.width, &own.rows, out);
    }

    /// Changes embedded tokens, `x`: `[n_rows, width]`, before anything else is done to them.
    pub(crate) fn adapt_embedding(
        self,
        device: &Device,
        tokens: &[u32],
        width: usize,
        x: &mut Buffer,
    ) {
        for (stack, rows) in self.stacks() {
            let Some(embedding) = stack.embedding() else {
                continue;
            };
            let tokens: Vec<u32> = rows.iter().map(|&row| tokens[row as usize]).collect();
            let mut scratch = self.step.scratch.borrow_mut();
            let Scratch {
                rows: gathered,
                out,
                ..
            } = &mut *scratch;
            grow(device, gathered, rows.len() * width);
            grow(device, out, rows.len() * width);
            device.gather_rows_into(x, width, rows, gathered);
            embedding.adapt(device, &tokens, width, gathered, out);
            device.scatter_rows(gathered, width, rows, x);
        }
    }
}

/// Makes room for at least `len` values; what was there is forgotten.
pub(super) fn grow(device: &Device, buffer: &mut Buffer, len: usize) {
    if buffer.len() < len {
        *buffer = Buffer::zeros(device, len);
    }
}
