//! Runs a few instructions on one warp with three inputs a lane.

use ptxsim::{Arg, Fault, Launch, Memory, Module};

/// A kernel of one warp: `%a`, `%b`, `%c` hold the lane's inputs (64 bits each; their low words
/// are `%x`, `%y`, `%z`), and what the body leaves in `%out` (64 bits) is the lane's result.
pub(crate) fn module(body: &str) -> Module {
    let text = format!(
        "
.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .pred %p<8>;
    .reg .b16 %h<16>;
    .reg .b32 %r<32>, %x, %y, %z, %lane;
    .reg .b64 %d<16>, %a, %b, %c, %out, %in, %to, %at;
    .shared .align 16 .b8 tile[1024];
    ld.param.u64 %in, [in];
    ld.param.u64 %to, [out];
    mov.u32 %lane, %tid.x;
    mul.wide.u32 %at, %lane, 24;
    add.s64 %in, %in, %at;
    mul.wide.u32 %at, %lane, 8;
    add.s64 %to, %to, %at;
    ld.global.u64 %a, [%in];
    ld.global.u64 %b, [%in+8];
    ld.global.u64 %c, [%in+16];
    cvt.u32.u64 %x, %a;
    cvt.u32.u64 %y, %b;
    cvt.u32.u64 %z, %c;
    mov.u64 %out, 0;
    {body}
    st.global.u64 [%to], %out;
    ret;
}}
"
    );
    Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs the body on a warp.
pub(crate) fn try_run(body: &str, inputs: &[[u64; 3]; 32]) -> Result<[u64; 32], Box<Fault>> {
    let module = module(body);
    let mut memory = Memory::new();
    let flat: Vec<u64> = inputs.iter().flatten().copied().collect();
    let (from, to) = (memory.upload(&flat), memory.alloc(32 * 8));
    let launch = Launch::new([1, 1, 1], [32, 1, 1]);
    let kernel = module.kernel("k").unwrap();
    kernel.launch(&launch, &[Arg::from(from), Arg::from(to)], &memory)?;
    let out = memory.download::<u64>(to, 32).unwrap();
    Ok(out.try_into().unwrap())
}

/// Runs the body on a warp that does nothing wrong.
pub(crate) fn run(body: &str, inputs: &[[u64; 3]; 32]) -> [u64; 32] {
    try_run(body, inputs).unwrap_or_else(|fault| panic!("{fault}\n{body}"))
}

/// Inputs with awkward values among arbitrary ones.
pub(crate) fn inputs(seed: u64, awkward: &[u64]) -> [[u64; 3]; 32] {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let n = awkward.len() as u64;
    std::array::from_fn(|_| {
        std::array::from_fn(|_| {
            let value = next();
            if n > 0 && next() % 2 == 0 {
                awkward[(value % n) as usize]
            } else {
                value
            }
        })
    })
}

/// Checks the body's low word in every lane against a function of the inputs' low words.
pub(crate) fn check32(body: &str, awkward: &[u32], f: impl Fn(u32, u32, u32) -> u32) {
    let awkward: Vec<u64> = awkward.iter().map(|value| u64::from(*value)).collect();
    for seed in 1..9 {
        let inputs = inputs(seed, &awkward);
        let out = run(body, &inputs);
        for (lane, [a, b, c]) in inputs.into_iter().enumerate() {
            let expected = f(a as u32, b as u32, c as u32);
            let got = out[lane] as u32;
            assert_eq!(
                got, expected,
                "{body}: {:#x} {:#x} {:#x}: {got:#x}, not {expected:#x}",
                a as u32, b as u32, c as u32
            );
        }
    }
}

/// The same for 64 bits.
pub(crate) fn check64(body: &str, awkward: &[u64], f: impl Fn(u64, u64, u64) -> u64) {
    for seed in 1..9 {
        let inputs = inputs(seed, awkward);
        let out = run(body, &inputs);
        for (lane, [a, b, c]) in inputs.into_iter().enumerate() {
            let expected = f(a, b, c);
            assert_eq!(out[lane], expected, "{body}: {a:#x} {b:#x} {c:#x}");
        }
    }
}
