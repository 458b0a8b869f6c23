//! Matrix instructions against a product computed value by value.

use half::{bf16, f16};
use ptxsim::FaultKind;

use crate::harness::{inputs, run, try_run};

fn small(bits: u64) -> f32 {
    ((bits % 17) as f32 - 8.0) / 4.0
}

/// Two 16-bit values in a word.
fn pair(bits: u64, encode: fn(f32) -> u16) -> u64 {
    u64::from(encode(small(bits))) | u64::from(encode(small(bits >> 8))) << 16
}

/// The m16n8k16 product by the layout in the ISA: lane `4 g + t` holds A's words 0 (row g,
/// columns 2t, 2t+1), 1 (row g + 8), 2 (row g, columns + 8) and 3 (both), B's words 0 (rows 2t,
/// 2t+1 of column g) and 1 (rows + 8).
fn expected(words: &[[u64; 3]; 32], decode: fn(u16) -> f32) -> [[f32; 4]; 32] {
    let half = |word: u64, at: usize| decode((word >> (16 * at)) as u16);
    let a = |row: usize, k: usize| {
        let [low, high, _] = words[row % 8 * 4 + k % 8 / 2];
        let word = if k < 8 { low } else { high };
        half(word, k % 2 + 2 * (row / 8))
    };
    let b = |k: usize, column: usize| half(words[column * 4 + k % 8 / 2][2], k % 2 + 2 * (k / 8));
    std::array::from_fn(|lane| {
        std::array::from_fn(|n| {
            let (row, column) = (lane / 4 + 8 * (n / 2), lane % 4 * 2 + n % 2);
            (0..16).map(|k| a(row, k) * b(k, column)).sum::<f32>() + n as f32
        })
    })
}

fn words(seed: u64, encode: fn(f32) -> u16) -> [[u64; 3]; 32] {
    inputs(seed, &[])
        .map(|lane| lane.map(|bits| pair(bits, encode) | pair(bits >> 16, encode) << 32))
}

/// `%r0..%r3` are A (words 0 and 1 from `%a`, 2 and 3 from `%b`), `%r4, %r5` are B.
const UNPACK: &str = "
    mov.b64 {%r0, %r1}, %a;
    mov.b64 {%r2, %r3}, %b;
    mov.b64 {%r4, %r5}, %c;
    mov.b32 %r8, 0f00000000; mov.b32 %r9, 0f3F800000;
    mov.b32 %r10, 0f40000000; mov.b32 %r11, 0f40400000;
";

fn multiply(ty: &str, words: &[[u64; 3]; 32], pick: &str) -> [u64; 32] {
    let body = format!(
        "{UNPACK}
        mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {{%r8, %r9, %r10, %r11}},
            {{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%r8, %r9, %r10, %r11}};
        mov.b64 %out, {pick};"
    );
    run(&body, words)
}

#[test]
fn products_of_sixteen_bit_values() {
    let bf = (|value| bf16::from_f32(value).to_bits()) as fn(f32) -> u16;
    let hf = (|value| f16::from_f32(value).to_bits()) as fn(f32) -> u16;
    let of_bf = (|bits| bf16::from_bits(bits).to_f32()) as fn(u16) -> f32;
    let of_hf = (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32;
    for (ty, encode, decode) in [("bf16", bf, of_bf), ("f16", hf, of_hf)] {
        let words = words(5, encode);
        let expected = expected(&words, decode);
        for (first, pick) in [(0, "{%r8, %r9}"), (2, "{%r10, %r11}")] {
            let out = multiply(ty, &words, pick);
            for lane in 0..32 {
                // Small multiples of 1/16: sums are exact.
                assert_eq!(
                    f32::from_bits(out[lane] as u32),
                    expected[lane][first],
                    "{ty} {lane}"
                );
                let second = f32::from_bits((out[lane] >> 32) as u32);
                assert_eq!(second, expected[lane][first + 1], "{ty} {lane}");
            }
        }
    }
}

#[test]
fn products_of_bytes() {
    let inputs = inputs(9, &[]);
    let body = "
        mov.b64 {%r0, %r1}, %a; mov.b64 {%r2, %r3}, %b; mov.b64 {%r4, %r5}, %c;
        mov.u32 %r8, 0; mov.u32 %r9, 0; mov.u32 %r10, 0; mov.u32 %r11, 100;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%r8, %r9, %r10, %r11},
            {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r8, %r9, %r10, %r11};
        mov.b64 %out, {%r8, %r11};";
    let out = run(body, &inputs);
    let byte = |word: u64, at: usize| (word >> (8 * at)) as u8;
    let a = |row: usize, k: usize| {
        let [low, high, _] = inputs[row % 8 * 4 + k % 16 / 4];
        let word = if k < 16 { low } else { high };
        i32::from(byte(word, k % 4 + 4 * (row / 8)) as i8)
    };
    let b = |k: usize, column: usize| {
        i32::from(byte(
            inputs[column * 4 + k % 16 / 4][2],
            k % 4 + 4 * (k / 16),
        ))
    };
    for (lane, value) in out.into_iter().enumerate() {
        let sum =
            |row: usize, column: usize| -> i32 { (0..32).map(|k| a(row, k) * b(k, column)).sum() };
        assert_eq!(value as u32 as i32, sum(lane / 4, lane % 4 * 2), "{lane}");
        let last = sum(lane / 4 + 8, lane % 4 * 2 + 1) + 100;
        assert_eq!((value >> 32) as i32, last, "{lane}");
    }
}

#[test]
fn products_of_byte_floats() {
    // Ones and twos only: 0x38 is 1 and 0x40 is 2 in e4m3.
    let inputs = inputs(6, &[]).map(|lane| {
        lane.map(|bits| {
            (0..8).fold(0, |word, at| {
                word | if bits >> (8 * at) & 1 == 1 {
                    0x40u64
                } else {
                    0x38
                } << (8 * at)
            })
        })
    });
    let body = "
        mov.b64 {%r0, %r1}, %a; mov.b64 {%r2, %r3}, %b; mov.b64 {%r4, %r5}, %c;
        mov.u32 %r8, 0; mov.u32 %r9, 0; mov.u32 %r10, 0; mov.u32 %r11, 0;
        mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%r8, %r9, %r10, %r11},
            {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r8, %r9, %r10, %r11};
        cvt.u64.u32 %out, %r8;";
    let out = run(body, &inputs);
    let value = |word: u64, at: usize| {
        if (word >> (8 * at)) as u8 == 0x40 {
            2.0
        } else {
            1.0
        }
    };
    for lane in 0..32 {
        let sum: f32 = (0..32)
            .map(|k| {
                let [low, high, _] = inputs[lane / 4 * 4 + k % 16 / 4];
                let a = value(if k < 16 { low } else { high }, k % 4);
                a * value(
                    inputs[lane % 4 * 2 * 4 + k % 16 / 4][2],
                    k % 4 + 4 * (k / 16),
                )
            })
            .sum();
        assert_eq!(f32::from_bits(out[lane] as u32), sum, "{lane}");
    }
}

/// Writes 32 rows of 16 bytes whose 16-bit values are their own indices, then loads tiles.
const ROWS: &str = "
    mov.u32 %r0, tile; shl.b32 %r1, %lane, 4; add.u32 %r0, %r0, %r1;
    shl.b32 %r1, %lane, 3; shl.b32 %r2, %r1, 16; or.b32 %r1, %r1, %r2; add.u32 %r1, %r1, 0x10000;
    add.u32 %r2, %r1, 0x20002; add.u32 %r3, %r1, 0x40004; add.u32 %r4, %r1, 0x60006;
    st.shared.v4.b32 [%r0], {%r1, %r2, %r3, %r4};
    bar.warp.sync -1;
";

#[test]
fn tiles_and_their_transposes() {
    let load = |trans: &str, pick: &str| {
        let body = format!(
            "{ROWS} ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r0];
            mov.b64 %out, {pick};"
        );
        run(&body, &[[0; 3]; 32])
    };
    let index = |tile: u64, row: u64, column: u64| 64 * tile + 8 * row + column;
    let (plain, turned) = (load("", "{%r4, %r7}"), load(".trans", "{%r5, %r6}"));
    for lane in 0..32 {
        let (row, column) = (lane as u64 / 4, lane as u64 % 4 * 2);
        let word = |tile| index(tile, row, column) | index(tile, row, column + 1) << 16;
        assert_eq!(plain[lane], word(0) | word(3) << 32);
        let word = |tile| index(tile, column, row) | index(tile, column + 1, row) << 16;
        assert_eq!(turned[lane], word(1) | word(2) << 32);
    }
    // Stored transposed and loaded plain is the transpose as well.
    let body = format!(
        "{ROWS} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r4}}, [%r0];
        stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r0], {{%r4}};
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r5}}, [%r0];
        movmatrix.sync.aligned.m8n8.trans.b16 %r6, %r5;
        mov.b64 %out, {{%r5, %r6}};"
    );
    for (lane, value) in run(&body, &[[0; 3]; 32]).into_iter().enumerate() {
        let (row, column) = (lane as u64 / 4, lane as u64 % 4 * 2);
        let turned = index(0, column, row) | index(0, column + 1, row) << 16;
        let plain = index(0, row, column) | index(0, row, column + 1) << 16;
        assert_eq!(value, turned | plain << 32);
    }
}

#[test]
fn missing_lanes() {
    let body =
        "setp.lt.u32 %p1, %lane, 31; @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r0];";
    let fault = try_run(body, &[[0; 3]; 32]).unwrap_err();
    let active = 0x7FFF_FFFF;
    assert_eq!(
        fault.kind,
        FaultKind::InactiveLanes {
            what: "ldmatrix",
            active
        }
    );
}
