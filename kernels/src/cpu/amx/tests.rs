//! The ops over modelled tiles, on any machine; and where there are tiles, these against the model.

use half::bf16;

use super::check::{Products, Rng};
use super::hardware::Hardware;
use super::model::{Model, ModelTiles};
use super::tiles::{ROW_BYTES, ROWS, Shape, Shapes, Tiles, Unit};
use crate::cpu::Cpu;
use crate::memory::Plain;
use crate::{
    Buffer, CpuOptions, Device, Isa, Linear, LinearCall, Numerics, WeightSource, WeightType,
    quantize,
};

impl Rng {
    fn values(&mut self, n: usize) -> Vec<f32> {
        let value = |bits: u64| (bits >> 40) as f32 / 8_388_608.0 - 1.0;
        (0..n).map(|_| value(self.next())).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() >> 56) as u8).collect()
    }

    fn source(&mut self, ty: WeightType, n_out: usize, n_in: usize) -> WeightSource<'static> {
        let values = self.values(n_out * n_in);
        let bytes = match ty {
            WeightType::BF16 => (values.iter())
                .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                .collect(),
            _ => {
                let n_blocks = values.len() / ty.block_elements();
                let mut bytes = vec![0; n_blocks * ty.block_bytes()];
                quantize(ty, &values, &mut bytes);
                bytes
            }
        };
        WeightSource {
            ty,
            n_out,
            n_in,
            bytes: bytes.into(),
        }
    }
}

fn options(isa: Isa, n_threads: usize) -> CpuOptions {
    CpuOptions {
        n_threads: Some(n_threads),
        isa: Some(isa),
    }
}

/// Modelled tiles beside every instruction set, and tiles of the machine.
fn devices_with_tiles() -> Vec<Device> {
    let mut devices = Vec::new();
    for isa in Isa::available() {
        for n_threads in [1, 2] {
            let cpu = Cpu::with_modelled_tiles(options(isa, n_threads));
            devices.push(Device::of_cpu(cpu));
        }
    }
    if Isa::Amx.is_available() {
        devices.push(Device::cpu(options(Isa::Amx, 2)));
    }
    devices
}

fn run(device: &Device, source: &WeightSource<'_>, x: &[f32], bias: &[f32]) -> Vec<f32> {
    let weight = Linear::pack(device, source, Numerics::Native).unwrap();
    let n_rows = x.len() / source.n_in;
    let bias = Buffer::from_slice(device, bias);
    let mut out = Buffer::zeros(device, n_rows * source.n_out);
    let call = LinearCall {
        weight: &weight,
        bias: Some(&bias),
        out: &mut out,
    };
    device.linear_into(&Buffer::from_slice(device, x), n_rows, &mut [call]);
    out.read(0..out.len()).into_owned()
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits();
        assert!(same, "{what}: value {i} is {found}, expected {expected}");
    }
}

#[test]
fn integers_have_the_bits_of_dot_instructions() {
    let plain = Device::cpu(options(Isa::Scalar, 1));
    for ty in WeightType::QUANTIZED {
        // Parts of a sum, tails of columns and of rows; fewer groups than a part has.
        for (n_out, n_in, n_rows) in [(100, 2304, 8), (33, 1024, 37), (16, 256, 16), (70, 512, 3)] {
            let mut rng = Rng(n_out as u64);
            let source = rng.source(ty, n_out, n_in);
            let (mut x, bias) = (rng.values(n_rows * n_in), rng.values(n_out));
            x[..32].fill(0.0);
            let expected = run(&plain, &source, &x, &bias);
            for device in devices_with_tiles() {
                let what = format!("{ty:?} {n_rows}x{n_in}x{n_out}, {}", device.describe());
                assert_same(&run(&device, &source, &x, &bias), &expected, &what);
            }
        }
    }
}

#[test]
fn integers_of_a_single_group() {
    let plain = Device::cpu(options(Isa::Scalar, 1));
    for n_in in [32, 64, 96] {
        let mut rng = Rng(n_in as u64);
        let source = rng.source(WeightType::Q8_0, 20, n_in);
        let (x, bias) = (rng.values(9 * n_in), rng.values(20));
        let expected = run(&plain, &source, &x, &bias);
        for device in devices_with_tiles() {
            let what = format!("{n_in} inputs, {}", device.describe());
            assert_same(&run(&device, &source, &x, &bias), &expected, &what);
        }
    }
}

/// A bf16 layer in the order of the instruction: of each 32 inputs the first of all pairs and the
/// second of all pairs, each in order, then both, then the sum so far.
fn in_order_of_tiles(source: &WeightSource<'_>, x: &[f32], bias: &[f32]) -> Vec<f32> {
    let rounded = |x: &f32| bf16::from_f32(*x).to_f32();
    let x: Vec<f32> = x.iter().map(rounded).collect();
    let (weights, _) = source.bytes.as_chunks();
    let weights: Vec<f32> = (weights.iter())
        .map(|&bytes| bf16::from_le_bytes(bytes).to_f32())
        .collect();
    let mut out = Vec::new();
    for x in x.chunks_exact(source.n_in) {
        for (weights, bias) in weights.chunks_exact(source.n_in).zip(bias) {
            let mut sum = 0.0_f32;
            for (x, weights) in x.chunks(32).zip(weights.chunks(32)) {
                let mut halves = [0.0_f32; 2];
                for (i, (x, weight)) in x.iter().zip(weights).enumerate() {
                    halves[i % 2] = x.mul_add(*weight, halves[i % 2]);
                }
                sum += halves[0] + halves[1];
            }
            out.push(sum + bias);
        }
    }
    out
}

#[test]
fn bf16_sums_are_those_of_the_instruction() {
    // Odd and even tiles of columns, tails of inputs, parts of a sum, rows that are not near.
    for (n_out, n_in, n_rows) in [
        (1, 1, 1),
        (17, 33, 2),
        (64, 64, 16),
        (150, 100, 5),
        (150, 96, 17),
        (33, 4130, 33),
        (40, 64, 300),
        (130, 31, 50),
    ] {
        let mut rng = Rng(n_in as u64);
        let source = rng.source(WeightType::BF16, n_out, n_in);
        let (x, bias) = (rng.values(n_rows * n_in), rng.values(n_out));
        let expected = in_order_of_tiles(&source, &x, &bias);
        for device in devices_with_tiles() {
            let what = format!("{n_rows}x{n_in}x{n_out}, {}", device.describe());
            assert_same(&run(&device, &source, &x, &bias), &expected, &what);
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for (n_rows, poisoned) in [(3, 1), (20, 17)] {
        for ty in [WeightType::BF16, WeightType::Q4_0] {
            let mut rng = Rng(7);
            let source = rng.source(ty, 40, 64);
            let (mut x, bias) = (rng.values(n_rows * 64), rng.values(40));
            x[poisoned * 64 + 5] = f32::NAN;
            for device in devices_with_tiles() {
                let out = run(&device, &source, &x, &bias);
                for (row, out) in out.chunks_exact(40).enumerate() {
                    let is_right = |x: &f32| x.is_nan() == (row == poisoned);
                    assert!(out.iter().all(is_right), "{ty:?} row {row} of {n_rows}");
                }
            }
        }
    }
}

/// The model, but for one fault.
#[derive(Clone, Copy)]
struct Faulty(Fault);

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// `A` and `B` of a product of bytes are exchanged.
    Bytes,
    /// A product of bf16 is added twice.
    Pairs,
    /// The sum so far comes first: other roundings.
    Order,
}

struct FaultyTiles(Fault, ModelTiles);

impl Unit for Faulty {
    type Tiles = FaultyTiles;

    fn configure(self, shapes: Shapes) -> FaultyTiles {
        FaultyTiles(self.0, Model.configure(shapes))
    }
}

impl Tiles for FaultyTiles {
    fn zero<const T: usize>(&mut self) {
        self.1.zero::<T>();
    }

    fn load<const T: usize>(&mut self, from: &[impl Plain], stride: usize) {
        self.1.load::<T>(from, stride);
    }

    fn store<const T: usize>(&self, to: &mut [impl Plain], stride: usize) {
        self.1.store::<T>(to, stride);
    }

    fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        if self.0 == Fault::Bytes {
            self.1.dot_bytes::<C, B, A>();
        } else {
            self.1.dot_bytes::<C, A, B>();
        }
    }

    fn dot_pairs<const C: usize, const A: usize, const B: usize>(&mut self) {
        match self.0 {
            Fault::Bytes => self.1.dot_pairs::<C, A, B>(),
            Fault::Pairs => {
                self.1.dot_pairs::<C, A, B>();
                self.1.dot_pairs::<C, A, B>();
            }
            Fault::Order => {
                // Pair by pair, by products of tiles of which all other rows are zeros.
                let mut rows = [[0_u8; ROW_BYTES]; ROWS];
                self.1.store::<B>(&mut rows, ROW_BYTES);
                for i in 0..ROWS {
                    let mut one = [[0_u8; ROW_BYTES]; ROWS];
                    one[i] = rows[i];
                    self.1.load::<B>(&one, ROW_BYTES);
                    self.1.dot_pairs::<C, A, B>();
                }
                self.1.load::<B>(&rows, ROW_BYTES);
            }
        }
    }
}

#[test]
fn faults_are_found_before_tiles_are_used() {
    let verdict = |fault| {
        let products = Products::of(Faulty(fault));
        (products.are_right(), products.are_rounded_alike())
    };
    assert_eq!(verdict(Fault::Bytes), (false, true));
    assert_eq!(verdict(Fault::Pairs), (false, false));
    assert_eq!(verdict(Fault::Order), (true, false));
}

#[test]
fn tiles_of_the_machine_are_those_of_the_model() {
    let Some(hardware) = Hardware::find() else {
        return println!("this machine has no tiles");
    };
    let products = Products::of(hardware);
    assert!(products.are_right() && products.are_rounded_alike());
    let sums = |rows| Shape::new(rows, ROW_BYTES);
    for (rows, inputs) in [(16, 64), (16, 32), (16, 16), (1, 64), (7, 64), (9, 4)] {
        let columns = Shape::new(inputs / 4, ROW_BYTES);
        let shapes = [sums(rows), Shape::new(rows, inputs), columns];
        let shapes: Shapes = std::array::from_fn(|i| shapes[i.min(2)]);
        for stride in [64, 80, 4096] {
            let mut rng = Rng((rows * inputs + stride) as u64);
            let memory = [rng.bytes(ROWS * stride), rng.bytes(ROWS * stride)];
            let what = format!("{rows} rows of {inputs}, {stride} apart");
            let found = both_products(hardware, shapes, &memory, stride);
            assert!(
                found == both_products(Model, shapes, &memory, stride),
                "{what}"
            );
        }
    }
}

/// What both products leave in memory.
fn both_products(
    unit: impl Unit,
    shapes: Shapes,
    [a, b]: &[Vec<u8>; 2],
    stride: usize,
) -> [Vec<u8>; 2] {
    let mut tiles = unit.configure(shapes);
    let finite = |bytes: &[u8]| -> Vec<u8> {
        // Exponents of bf16 with their highest bit clear, so that no sum is infinite.
        let halves = bytes.chunks_exact(2);
        halves.flat_map(|half| [half[0], half[1] & 0xbf]).collect()
    };
    [false, true].map(|of_pairs| {
        let (a, b) = if of_pairs {
            (finite(a), finite(b))
        } else {
            (a.clone(), b.clone())
        };
        tiles.load::<0>(&finite(&b), stride);
        tiles.load::<1>(&a, stride);
        tiles.load::<2>(&b, stride);
        if of_pairs {
            tiles.dot_pairs::<0, 1, 2>();
        } else {
            tiles.dot_bytes::<0, 1, 2>();
        }
        let mut out = vec![0xee; ROWS * stride];
        tiles.store::<0>(&mut out, stride);
        out
    })
}
