//! How fast the simulator is on one core: `cargo run --release -p ptxsim --example speed`.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::error::Error;
use std::time::Instant;

use ptxsim::{Arg, Launch, Memory, Module, Options};

/// Loops over arithmetic (with a load, a store and a shuffle), and over matrix multiplies.
const TEXT: &str = "
.version 7.8
.target sm_80
.address_size 64
.visible .entry arithmetic(.param .u64 data)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    .reg .f32 %f<8>;
    .shared .align 16 .b8 room[1024];
    ld.param.u64 %rd1, [data];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd1, %rd1, %rd2;
    mov.u32 %r2, room;
    shl.b32 %r3, %r1, 2;
    add.u32 %r2, %r2, %r3;
    mov.u32 %r4, 0;
    mov.f32 %f1, 0f3F800000;
again:
    ld.global.f32 %f2, [%rd1];
    fma.rn.f32 %f1, %f1, %f2, %f2;
    st.shared.f32 [%r2], %f1;
    shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;
    fma.rn.f32 %f3, %f1, %f2, %f1;
    mul.f32 %f4, %f3, %f2;
    ld.shared.f32 %f5, [%r2];
    add.f32 %f1, %f4, %f5;
    xor.b32 %r6, %r5, %r3;
    and.b32 %r7, %r6, 255;
    add.s32 %r4, %r4, 1;
    setp.lt.s32 %p1, %r4, 10000;
    @%p1 bra again;
    ret;
}
.visible .entry products()
{
    .reg .pred %p<2>;
    .reg .b32 %r<20>;
    mov.u32 %r1, 0;
    mov.u32 %r2, 0x3F803F80;
    mov.u32 %r4, 0;
    mov.u32 %r5, 0;
    mov.u32 %r6, 0;
    mov.u32 %r7, 0;
again:
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r4, %r5, %r6, %r7}, {%r2, %r2, %r2, %r2}, {%r2, %r2}, {%r4, %r5, %r6, %r7};
    add.s32 %r1, %r1, 1;
    setp.lt.s32 %p1, %r1, 10000;
    @%p1 bra again;
    ret;
}
";

fn main() -> Result<(), Box<dyn Error>> {
    let module = Module::parse(TEXT)?;
    let mut memory = Memory::new();
    let data = memory.upload(&[0.5f32; 256]);
    let options = Options {
        n_workers: 1,
        ..Options::default()
    };
    let launch = Launch::new([4, 1, 1], [128, 1, 1]).with_options(options);
    for (name, args) in [
        ("arithmetic", vec![Arg::from(data)]),
        ("products", Vec::new()),
    ] {
        let kernel = module.kernel(name).ok_or("no such kernel")?;
        let begin = Instant::now();
        let counters = kernel.launch(&launch, &args, &memory)?.counters;
        let seconds = begin.elapsed().as_secs_f64();
        let lanes = counters.lane_instructions as f64 / seconds / 1e6;
        let flops = counters.mma as f64 * 2.0 * 2048.0 / seconds / 1e9;
        println!("{name}: {lanes:.0} M lane-instructions/s, {flops:.2} Gflop/s of mma");
    }
    Ok(())
}
