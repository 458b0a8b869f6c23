//! Matrix instructions of a warp: loads and stores of 8x8 tiles, and the tensor cores.

use half::{bf16, f16};

use super::Decoder;
use super::memory::Address;
use crate::code::{Act, Op};
use crate::fault::{FaultKind, LaneFault, PtxError};
use crate::fp8::Fp8;
use crate::registers::{Lane, Registers, Slot};
use crate::run::{Context, Write};
use crate::types::Type;
use crate::vector;

/// All 32 lanes must take part.
fn all_lanes(what: &'static str, active: u32) -> Result<(), LaneFault> {
    if active == u32::MAX {
        return Ok(());
    }
    Err(FaultKind::InactiveLanes { what, active }.of_warp())
}

/// Bytes of one row of an 8x8 tile of 16-bit values.
const ROW: usize = 16;

impl Decoder<'_> {
    pub(super) fn matrix(&mut self) -> Result<Op, PtxError> {
        match self.parts[0] {
            "ldmatrix" => self.load_matrix(),
            "stmatrix" => self.store_matrix(),
            "movmatrix" => self.transpose(),
            _ => self.multiply(),
        }
    }

    fn tiles(&self) -> Result<usize, PtxError> {
        self.only(&[
            "sync",
            "aligned",
            "m8n8",
            "x1",
            "x2",
            "x4",
            "trans",
            "shared",
            "shared::cta",
        ])?;
        Ok(match () {
            () if self.has("x4") => 4,
            () if self.has("x2") => 2,
            () => 1,
        })
    }

    fn load_matrix(&mut self) -> Result<Op, PtxError> {
        let n = self.tiles()?;
        let targets = self.target_words(0)?;
        let address = self.address(1)?;
        let trans = self.has("trans");
        if targets.len() != n {
            return Err(self.error("registers do not fit the number of tiles"));
        }
        let act: Act = Box::new(move |context, active| {
            all_lanes("ldmatrix", active)?;
            let rows = address.lanes(context.registers);
            for (tile, target) in targets.iter().enumerate() {
                let values = load_tile(context, &rows, 8 * tile)?;
                let out = std::array::from_fn(|lane| fragment(&values, lane, trans));
                u32::write(context.registers, *target, active, &out);
            }
            context.count_rows(&rows, n);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn store_matrix(&mut self) -> Result<Op, PtxError> {
        let n = self.tiles()?;
        let address = self.address(0)?;
        let sources = self.source_words(1)?;
        let trans = self.has("trans");
        if sources.len() != n {
            return Err(self.error("registers do not fit the number of tiles"));
        }
        let act: Act = Box::new(move |context, active| {
            all_lanes("stmatrix", active)?;
            store_tiles(context, address, &sources, trans)?;
            let rows = address.lanes(context.registers);
            context.count_rows(&rows, n);
            Ok(())
        });
        Ok(Op::Act(act))
    }

    fn transpose(&mut self) -> Result<Op, PtxError> {
        let (d, a) = (self.target::<u32>(0)?, self.source::<u32>(1)?);
        let act: Act = Box::new(move |context, active| {
            all_lanes("movmatrix", active)?;
            let values = tile_of(&u32::read(context.registers, a), false);
            let out = std::array::from_fn(|lane| fragment(&values, lane, true));
            u32::write(context.registers, d, active, &out);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}

/// An 8x8 tile, row by row.
type Tile = [[u16; 8]; 8];

/// What a lane holds of a tile: two neighbours of a row, or of a column if transposed.
fn fragment(tile: &Tile, lane: usize, trans: bool) -> u32 {
    let (row, column) = (lane / 4, 2 * (lane % 4));
    let at = |offset: usize| match trans {
        false => tile[row][column + offset],
        true => tile[column + offset][row],
    };
    u32::from(at(1)) << 16 | u32::from(at(0))
}

/// The tile that lanes hold.
fn tile_of(lanes: &[u32; 32], trans: bool) -> Tile {
    let mut tile = [[0; 8]; 8];
    for (lane, pair) in lanes.iter().enumerate() {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        for (offset, value) in [*pair as u16, (*pair >> 16) as u16].into_iter().enumerate() {
            match trans {
                false => tile[row][column + offset] = value,
                true => tile[column + offset][row] = value,
            }
        }
    }
    tile
}

/// Reads eight rows at the addresses of lanes `first..first + 8`.
fn load_tile(context: &mut Context<'_>, rows: &[u64; 32], first: usize) -> Result<Tile, LaneFault> {
    let mut tile = [[0; 8]; 8];
    for (row, tile) in tile.iter_mut().enumerate() {
        let lane = first + row;
        let actor = context.actor(lane);
        let bytes = context.shared.read(actor, rows[lane], ROW, ROW);
        let bytes = bytes.map_err(|kind| kind.at(lane))?;
        for (value, bytes) in tile.iter_mut().zip(bytes.chunks_exact(2)) {
            *value = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
    }
    Ok(tile)
}

fn store_tiles(
    context: &mut Context<'_>,
    address: Address,
    sources: &[Slot],
    trans: bool,
) -> Result<(), LaneFault> {
    let rows = address.lanes(context.registers);
    for (number, source) in sources.iter().enumerate() {
        let tile = tile_of(&u32::read(context.registers, *source), trans);
        for (row, values) in tile.iter().enumerate() {
            let lane = 8 * number + row;
            let actor = context.actor(lane);
            let bytes = context
                .shared
                .write(actor, rows[lane], ROW, ROW, Write::Plain);
            let bytes = bytes.map_err(|kind| kind.at(lane))?;
            for (bytes, value) in bytes.chunks_exact_mut(2).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// An input format of the tensor cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Bf16,
    F16,
    E4m3,
    E5m2,
    S8,
    U8,
}

impl Input {
    fn of(ty: Type) -> Option<Self> {
        Some(match ty {
            Type::Bf16 => Self::Bf16,
            Type::F16 => Self::F16,
            Type::E4m3 => Self::E4m3,
            Type::E5m2 => Self::E5m2,
            Type::S8 => Self::S8,
            Type::U8 => Self::U8,
            _ => return None,
        })
    }

    /// Values in one 32-bit register.
    fn per_word(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            _ => 4,
        }
    }

    fn is_integer(self) -> bool {
        matches!(self, Self::S8 | Self::U8)
    }

    fn value(self, word: u32, at: usize) -> f32 {
        let half = (word >> (16 * (at & 1))) as u16;
        let byte = (word >> (8 * at)) as u8;
        match self {
            Self::Bf16 => bf16::from_bits(half).to_f32(),
            Self::F16 => f16::from_bits(half).to_f32(),
            Self::E4m3 => Fp8::E4m3.decode(byte),
            Self::E5m2 => Fp8::E5m2.decode(byte),
            Self::S8 => f32::from(byte as i8),
            Self::U8 => f32::from(byte),
        }
    }
}

/// What a multiply is of.
#[derive(Clone, Copy, Debug)]
struct Shape {
    k: usize,
    a: Input,
    b: Input,
}

/// Rows of A: word `n` of a lane lies in row `lane / 4`, plus 8 for odd `n`, and in the second
/// half of K from `n = 2` on.
fn gather_a(registers: &Registers, slots: &[Slot], shape: Shape) -> [[f32; 32]; 16] {
    let mut a = [[0.0; 32]; 16];
    let per_word = shape.a.per_word();
    for (n, slot) in slots.iter().enumerate() {
        let words = &registers.words[slot.0 as usize];
        for (lane, word) in words.iter().enumerate() {
            let row = lane / 4 + 8 * (n & 1);
            let k = per_word * (lane % 4) + 4 * per_word * (n / 2);
            for at in 0..per_word {
                a[row][k + at] = shape.a.value(*word, at);
            }
        }
    }
    a
}

/// B by K and column: word `n` of a lane lies in column `lane / 4`.
fn gather_b(registers: &Registers, slots: &[Slot], shape: Shape) -> [[f32; 8]; 32] {
    let mut b = [[0.0; 8]; 32];
    let per_word = shape.b.per_word();
    for (n, slot) in slots.iter().enumerate() {
        let words = &registers.words[slot.0 as usize];
        for (lane, word) in words.iter().enumerate() {
            let k = per_word * (lane % 4) + 4 * per_word * n;
            for at in 0..per_word {
                b[k + at][lane / 4] = shape.b.value(*word, at);
            }
        }
    }
    b
}

/// Row and column of value `n` of a lane in C and D.
fn place(lane: usize, n: usize) -> (usize, usize) {
    (lane / 4 + 8 * (n / 2), 2 * (lane % 4) + (n & 1))
}

fn f32_sums(registers: &mut Registers, shape: Shape, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    for (n, slot) in slots.c.iter().enumerate() {
        for (lane, value) in f32::read(registers, *slot).into_iter().enumerate() {
            let (row, column) = place(lane, n);
            sums[row][column] = value;
        }
    }
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (n, slot) in slots.d.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let (row, column) = place(lane, n);
            sums[row][column]
        });
        f32::write(registers, *slot, u32::MAX, &out);
    }
}

/// f16 accumulators come in pairs; the sum is kept in f32 and rounded once.
fn f16_sums(registers: &mut Registers, shape: Shape, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    for (n, slot) in slots.c.iter().enumerate() {
        for (lane, pair) in u32::read(registers, *slot).into_iter().enumerate() {
            for half in 0..2 {
                let (row, column) = place(lane, 2 * n + half);
                sums[row][column] = Input::F16.value(pair, half);
            }
        }
    }
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (n, slot) in slots.d.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let half = |half: usize| {
                let (row, column) = place(lane, 2 * n + half);
                u32::from(f16::from_f32(sums[row][column]).to_bits())
            };
            half(1) << 16 | half(0)
        });
        u32::write(registers, *slot, u32::MAX, &out);
    }
}

/// Integer sums are exact in f32 up to 2^24, and 32 products stay below 2^21.
fn i32_sums(registers: &mut Registers, shape: Shape, saturate: bool, slots: &Slots) {
    let a = gather_a(registers, &slots.a, shape);
    let b = gather_b(registers, &slots.b, shape);
    let mut sums = [[0.0; 8]; 16];
    vector::matrix(&a, &b, shape.k, &mut sums);
    for (c, d) in slots
        .c
        .iter()
        .zip(&slots.d)
        .enumerate()
        .map(|(n, (c, d))| ((n, c), d))
    {
        let (n, c) = c;
        let before = i32::read(registers, *c);
        let out = std::array::from_fn(|lane| {
            let (row, column) = place(lane, n);
            let sum = sums[row][column] as i32;
            if saturate {
                before[lane].saturating_add(sum)
            } else {
                before[lane].wrapping_add(sum)
            }
        });
        i32::write(registers, *d, u32::MAX, &out);
    }
}

/// Registers of a multiply.
struct Slots {
    d: Vec<Slot>,
    a: Vec<Slot>,
    b: Vec<Slot>,
    c: Vec<Slot>,
}

const SHAPES: [(&str, usize); 3] = [("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)];

impl Decoder<'_> {
    /// `mma.sync.aligned.shape.row.col.dtype.atype.btype.ctype d, a, b, c;`
    fn multiply(&mut self) -> Result<Op, PtxError> {
        let shape = SHAPES.iter().find(|(name, _)| self.has(name));
        let (name, k) = *shape.ok_or_else(|| self.unsupported("that shape"))?;
        self.only(&[
            "sync",
            "aligned",
            name,
            "row",
            "col",
            "satfinite",
            "kind::f8f6f4",
        ])?;
        let types = self.types();
        let [d, a, b, c] = types[..] else {
            return Err(self.unsupported("that form"));
        };
        let (Some(a), Some(b)) = (Input::of(a), Input::of(b)) else {
            return Err(self.unsupported("that input type"));
        };
        let words = |input: Input, rows: usize| rows * k / 32 / input.per_word();
        let slots = Slots {
            d: self.target_words(0)?,
            a: self.source_words(1)?,
            b: self.source_words(2)?,
            c: self.source_words(3)?,
        };
        let sums = if d == Type::F16 { 2 } else { 4 };
        let lens = [slots.d.len(), slots.a.len(), slots.b.len(), slots.c.len()];
        if lens != [sums, words(a, 16), words(b, 8), sums] || words(b, 8) == 0 {
            return Err(self.unsupported("that combination of shape and types"));
        }
        let shape = Shape { k, a, b };
        let saturate = self.has("satfinite");
        let sum: fn(&mut Registers, Shape, bool, &Slots) =
            match (d, c, a.is_integer() && b.is_integer()) {
                (Type::F32, Type::F32, false) => |r, shape, _, slots| f32_sums(r, shape, slots),
                (Type::F16, Type::F16, false) => |r, shape, _, slots| f16_sums(r, shape, slots),
                (Type::S32, Type::S32, true) => i32_sums,
                _ => return Err(self.unsupported("that combination of types")),
            };
        let act: Act = Box::new(move |context, active| {
            all_lanes("mma", active)?;
            context.counters.mma += 1;
            sum(context.registers, shape, saturate, &slots);
            Ok(())
        });
        Ok(Op::Act(act))
    }
}
