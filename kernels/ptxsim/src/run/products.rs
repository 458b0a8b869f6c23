//! Products of warp groups (`wgmma`) that a warp has asked for. They happen as late as they may:
//! when the warp waits for their group. Until then nobody may touch their registers, and what
//! they read of shared memory must stay.

use std::collections::VecDeque;
use std::sync::Arc;

use super::context::Context;
use super::shared::Unnoted;
use super::traffic;
use crate::fault::{FaultKind, LaneFault};
use crate::registers::{Lane, Registers, Slot};

/// Where an operand lies in shared memory: rows of 16 inputs, 8 rows a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    at: u64,
    /// Bytes from one group of eight rows to the next, and from the first 16 bytes of all rows
    /// of a group to the second if nothing is exchanged.
    group: u64,
    half: u64,
    /// Bytes of a row of the pattern in which parts of 16 bytes are exchanged; 16 for none.
    width: u64,
}

impl Rows {
    /// Reads a matrix descriptor.
    pub(crate) fn of(descriptor: u64) -> Result<Self, FaultKind> {
        let field = |shift: u32| (descriptor >> shift & 0x3FFF) << 4;
        let width = [16, 128, 64, 32][(descriptor >> 62) as usize];
        let (at, half, group) = (field(0), field(16), field(32));
        let wrong = |what: &str| {
            let what = what.to_owned();
            Err(FaultKind::Descriptor { descriptor, what })
        };
        if descriptor >> 49 & 7 != 0 {
            return wrong("a base offset is not simulated");
        }
        if width > 16 && at % (8 * width) + 32 > width {
            return wrong("its begin is not in the first row of a pattern of eight rows");
        }
        if width > 16 && group % (8 * width) != 0 {
            return wrong("groups of eight rows are not whole patterns apart");
        }
        Ok(Self {
            at,
            group,
            half,
            width,
        })
    }

    /// Where 16 bytes of a row lie: the first (`half` 0) or the second.
    fn part(self, row: usize, half: usize) -> u64 {
        let (group, row, half) = (row as u64 / 8, row as u64 % 8, half as u64);
        if self.width == 16 {
            return self.at + group * self.group + half * self.half + row * 16;
        }
        let address = self.at + group * self.group + row * self.width + 16 * half;
        address ^ (address >> 7 & (self.width / 16 - 1)) << 4
    }
}

/// The first operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum First {
    Shared(Rows),
    Registers([Slot; 4]),
}

/// What all products of one instruction have in common.
#[derive(Debug)]
pub(crate) struct Form {
    /// Columns.
    pub(crate) n: usize,
    /// One 16-bit value as a number.
    pub(crate) value: fn(u16) -> f64,
    pub(crate) sums: Vec<Slot>,
}

/// One product of a warp: 16 rows of the 64.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) form: Arc<Form>,
    pub(crate) a: First,
    pub(crate) b: Rows,
    /// Whether it adds to the sums that there are.
    pub(crate) adds: bool,
    /// Line of the instruction.
    pub(crate) line: u32,
}

impl Product {
    /// Registers of the first operand.
    fn first(&self) -> &[Slot] {
        match &self.a {
            First::Shared(_) => &[],
            First::Registers(slots) => slots,
        }
    }

    fn registers(&self) -> impl Iterator<Item = Slot> {
        self.form.sums.iter().chain(self.first()).copied()
    }
}

/// The products of a warp that have not happened.
#[derive(Debug)]
pub(crate) struct Products {
    open: Vec<Product>,
    groups: VecDeque<Vec<Product>>,
    /// How many products use a word register.
    in_flight: Vec<u8>,
    /// Whether registers of products were touched since the last `wgmma.fence`.
    touched: bool,
}

impl Default for Products {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            groups: VecDeque::new(),
            in_flight: Vec::new(),
            touched: true,
        }
    }
}

impl Products {
    /// An instruction that is no product uses these registers of products.
    pub(super) fn touch(&mut self, slots: &[Slot]) -> Result<(), LaneFault> {
        self.touched = true;
        if slots.iter().any(|slot| self.is_busy(*slot)) {
            return Err(FaultKind::RegisterInFlight.of_warp());
        }
        Ok(())
    }

    pub(crate) fn fence(&mut self) {
        self.touched = false;
    }

    pub(crate) fn commit(&mut self) {
        let group = std::mem::take(&mut self.open);
        self.groups.push_back(group);
    }

    /// The line of a product that nobody has waited for.
    pub(super) fn unfinished(&self) -> Option<u32> {
        let mut all = self.groups.iter().flatten().chain(&self.open);
        all.next().map(|product| product.line)
    }

    fn is_busy(&self, slot: Slot) -> bool {
        self.in_flight.get(slot.0 as usize).is_some_and(|n| *n > 0)
    }

    /// Registers of a product in flight may be those of another only as the very same sums, which
    /// devices add to in order, or read by both.
    fn check_registers(&self, product: &Product) -> Result<(), FaultKind> {
        if !product.registers().any(|slot| self.is_busy(slot)) {
            return Ok(());
        }
        let in_flight = self.groups.iter().flatten().chain(&self.open);
        for other in in_flight {
            let sums = &product.form.sums;
            let is_other = |slot: &Slot| other.form.sums.contains(slot);
            let reads_sums = product.first().iter().any(is_other);
            let writes_first = other.first().iter().any(|slot| sums.contains(slot));
            let same = *sums == other.form.sums;
            if reads_sums || writes_first || !same && sums.iter().any(is_other) {
                return Err(FaultKind::RegisterInFlight);
            }
        }
        Ok(())
    }

    fn count(&mut self, product: &Product, by: i8) {
        for slot in product.registers() {
            let at = slot.0 as usize;
            if self.in_flight.len() <= at {
                self.in_flight.resize(at + 1, 0);
            }
            self.in_flight[at] = self.in_flight[at].saturating_add_signed(by);
        }
    }
}

/// Bytes of 16 inputs of a row.
type Row = [u8; 32];

fn numbers(row: &Row, value: fn(u16) -> f64) -> [f64; 16] {
    std::array::from_fn(|k| value(u16::from_le_bytes([row[2 * k], row[2 * k + 1]])))
}

impl Context<'_> {
    /// Asks for a product: what it reads must be there, and its registers must be fenced.
    pub(crate) fn issue(&mut self, product: Product) -> Result<(), FaultKind> {
        if self.products.touched {
            return Err(FaultKind::MissingFence);
        }
        self.products.check_registers(&product)?;
        self.operands(&product, Unnoted::Yes)?;
        self.count_product(&product);
        self.products.count(&product, 1);
        self.products.open.push(product);
        Ok(())
    }

    /// Waits until at most `n_left` groups are left.
    pub(crate) fn finish(&mut self, n_left: usize) -> Result<(), FaultKind> {
        while self.products.groups.len() > n_left {
            for product in self.products.groups.pop_front().unwrap_or_default() {
                let (a, b) = self.operands(&product, Unnoted::No)?;
                multiply(self.registers, &product, &a, &b);
                self.products.count(&product, -1);
            }
        }
        Ok(())
    }

    /// The warp's rows of the first operand, and all of the second.
    fn operands(
        &mut self,
        product: &Product,
        unnoted: Unnoted,
    ) -> Result<(Vec<Row>, Vec<Row>), FaultKind> {
        let a = match product.a {
            First::Shared(rows) => self.rows(rows, 16 * (self.warp % 4), 16, unnoted)?,
            First::Registers(slots) => fragment(self.registers, &slots),
        };
        Ok((a, self.rows(product.b, 0, product.form.n, unnoted)?))
    }

    fn rows(
        &mut self,
        rows: Rows,
        first: usize,
        n: usize,
        unnoted: Unnoted,
    ) -> Result<Vec<Row>, FaultKind> {
        let actor = self.actor(0);
        let mut out = vec![[0; 32]; n];
        for (row, out) in out.iter_mut().enumerate() {
            for (half, out) in out.chunks_exact_mut(16).enumerate() {
                let at = rows.part(first + row, half);
                out.copy_from_slice(self.shared.read_async(actor, at, 16, unnoted)?);
            }
        }
        Ok(out)
    }

    /// Counts the passes over shared memory; the second operand is read once for four warps.
    fn count_product(&mut self, product: &Product) {
        self.counters.wgmma += 1;
        let mut count = |rows: Rows, first: usize, n: usize| {
            for (row, half) in (0..n).step_by(8).flat_map(|row| [(row, 0), (row, 1)]) {
                let parts = std::array::from_fn(|lane| rows.part(first + row + lane % 8, half));
                traffic::shared(self.counters, 0xFF, &parts, 16);
            }
        };
        if let First::Shared(rows) = product.a {
            count(rows, 16 * (self.warp % 4), 16);
        }
        if self.warp.is_multiple_of(4) {
            count(product.b, 0, product.form.n);
        }
    }
}

/// Rows of the first operand from registers, which lie as those of `mma.m16n8k16`.
fn fragment(registers: &Registers, slots: &[Slot; 4]) -> Vec<Row> {
    let mut rows = vec![[0; 32]; 16];
    for (n, slot) in slots.iter().enumerate() {
        for (lane, word) in registers.words[slot.0 as usize].iter().enumerate() {
            let (row, at) = (lane / 4 + 8 * (n % 2), 4 * (lane % 4) + 16 * (n / 2));
            rows[row][at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
    rows
}

/// Adds to the sums. The sixteen products are added up in f64 and the sum is rounded once: unlike
/// what `mma` does here, so that a kernel which mixes the two is seen to.
fn multiply(registers: &mut Registers, product: &Product, a: &[Row], b: &[Row]) {
    let form = &product.form;
    let mut columns = vec![[0.0; 16]; form.n];
    for (column, row) in columns.iter_mut().zip(b) {
        *column = numbers(row, form.value);
    }
    let rows: Vec<[f64; 16]> = a.iter().map(|row| numbers(row, form.value)).collect();
    // Rows that are not there are common, and change nothing.
    let finite = columns.as_flattened().iter().all(|value| value.is_finite());
    let idle: Vec<bool> = rows.iter().map(|row| finite && *row == [0.0; 16]).collect();
    for (n, slot) in form.sums.iter().enumerate() {
        let old = f32::read(registers, *slot);
        let out: [f32; 32] = std::array::from_fn(|lane| {
            let at = lane / 4 + n % 4 / 2 * 8;
            let before = if product.adds { old[lane] } else { 0.0 };
            if idle[at] {
                return before;
            }
            let row = &rows[at];
            let column = &columns[n / 4 * 8 + 2 * (lane % 4) + n % 2];
            let mut parts = [0.0; 4];
            for k in (0..16).step_by(4) {
                for (i, part) in parts.iter_mut().enumerate() {
                    *part += row[k + i] * column[k + i];
                }
            }
            let sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
            (f64::from(before) + sum) as f32
        });
        f32::write(registers, *slot, u32::MAX, &out);
    }
}
