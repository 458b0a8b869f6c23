//! Products of warp groups against a product computed value by value.

use half::{bf16, f16};
use ptxsim::{Arg, Fault, FaultKind, Launch, Memory, Module};

/// How rows of an operand lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Bytes of a row of a pattern whose parts are exchanged; 0: parts of 8 rows by 16 bytes.
    width: usize,
    /// Where the 16 inputs begin in a row.
    offset: usize,
}

impl Layout {
    /// By the ISA: the bits above a part's 16 bytes are exchanged by those of the row.
    fn place(self, row: usize, k: usize, n_rows: usize) -> usize {
        let (part, within) = (2 * k / 16, 2 * k % 16);
        if self.width == 0 {
            return part * n_rows * 16 + row * 16 + within;
        }
        let column = self.offset + 2 * k;
        let parts = self.width / 16;
        let exchanged = (column / 16) ^ (row * self.width / 128 % parts);
        row * self.width + exchanged * 16 + within
    }

    fn bytes(self, n_rows: usize) -> usize {
        n_rows * self.width.max(32)
    }

    /// All but the address.
    fn descriptor(self, n_rows: usize) -> u64 {
        let (mode, half, group) = match self.width {
            0 => (0, n_rows * 16, 128),
            128 => (1, 16, 8 * 128),
            64 => (2, 16, 8 * 64),
            _ => (3, 16, 8 * 32),
        };
        (half as u64 >> 4) << 16 | (group as u64 >> 4) << 32 | mode << 62
    }

    /// Random values where no operand lies.
    fn lay(self, values: &[f32], n_rows: usize, encode: fn(f32) -> u16) -> Vec<u8> {
        let mut bytes = vec![0x3A; self.bytes(n_rows)];
        for (i, value) in values.iter().enumerate() {
            let at = self.place(i / 16, i % 16, n_rows);
            bytes[at..at + 2].copy_from_slice(&encode(*value).to_le_bytes());
        }
        bytes
    }
}

const PLAIN: Layout = Layout {
    width: 0,
    offset: 0,
};

/// Brings both operands to shared memory, for products to read.
fn bring(a_bytes: usize, b_bytes: usize) -> String {
    format!(
        "
    mov.u32 %lane, %tid.x;
    ld.param.u64 %d0, [a];
    mov.u32 %r0, left;
    mov.u32 %r1, {a_bytes};
    mov.u32 %r3, 0;
AGAIN:
    shl.b32 %r2, %lane, 2;
NEXT:
    setp.ge.u32 %p0, %r2, %r1;
    @%p0 bra DONE;
    cvt.u64.u32 %d1, %r2;
    add.u64 %d1, %d0, %d1;
    ld.global.b32 %r8, [%d1];
    add.u32 %r9, %r0, %r2;
    st.shared.b32 [%r9], %r8;
    add.u32 %r2, %r2, 512;
    bra NEXT;
DONE:
    setp.eq.u32 %p1, %r3, 1;
    @%p1 bra BOTH;
    mov.u32 %r3, 1;
    ld.param.u64 %d0, [b];
    mov.u32 %r0, right;
    mov.u32 %r1, {b_bytes};
    bra AGAIN;
BOTH:
    fence.proxy.async.shared::cta;
    bar.sync 0;
"
    )
}

/// A kernel of one warp group: brings both operands to shared memory, multiplies onto sums of
/// 1, and gives each thread's sums. `adds` is `scale-d`.
fn text(n: usize, ty: &str, layouts: [Layout; 2], from_registers: bool, adds: bool) -> String {
    let n_sums = n / 2;
    let sums: Vec<String> = (0..n_sums).map(|i| format!("%f{i}")).collect();
    let list = sums.join(", ");
    let ones: String = sums
        .iter()
        .map(|sum| format!("mov.f32 {sum}, 0f3F800000;\n"))
        .collect();
    let stores: String = (0..n_sums)
        .map(|i| format!("st.global.f32 [%d5+{}], %f{i};\n", 4 * i))
        .collect();
    let [a_bytes, b_bytes] = [layouts[0].bytes(64), layouts[1].bytes(n)];
    let a = if from_registers {
        "{%r4, %r5, %r6, %r7}"
    } else {
        "%d2"
    };
    let adds = u32::from(adds);
    let bring = bring(a_bytes, b_bytes);
    format!(
        "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 fragments, .param .u64 out)
{{
    .reg .pred %p<4>;
    .reg .b32 %r<16>, %lane;
    .reg .f32 %f<128>;
    .reg .b64 %d<16>;
    .shared .align 1024 .b8 left[{a_bytes}];
    .shared .align 1024 .b8 right[{b_bytes}];
    {bring}
    mov.u32 %r0, left;
    add.u32 %r0, %r0, {a_offset};
    shr.u32 %r0, %r0, 4;
    cvt.u64.u32 %d2, %r0;
    or.b64 %d2, %d2, {a_rest:#x};
    mov.u32 %r0, right;
    add.u32 %r0, %r0, {b_offset};
    shr.u32 %r0, %r0, 4;
    cvt.u64.u32 %d3, %r0;
    or.b64 %d3, %d3, {b_rest:#x};
    ld.param.u64 %d4, [fragments];
    mul.wide.u32 %d5, %lane, 16;
    add.u64 %d4, %d4, %d5;
    ld.global.v4.b32 {{%r4, %r5, %r6, %r7}}, [%d4];
    {ones}
    setp.eq.u32 %p2, {adds}, 1;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{ty}.{ty} {{{list}}}, {a}, %d3, %p2, 1, 1{transposed};
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    ld.param.u64 %d4, [out];
    mul.wide.u32 %d5, %lane, {out_bytes};
    add.u64 %d5, %d4, %d5;
    {stores}
    ret;
}}
",
        a_offset = layouts[0].offset,
        b_offset = layouts[1].offset,
        a_rest = layouts[0].descriptor(64),
        b_rest = layouts[1].descriptor(n),
        transposed = if from_registers { ", 0" } else { ", 0, 0" },
        out_bytes = 4 * n_sums,
    )
}

fn small(i: usize) -> f32 {
    ((i * 7919 + i / 16 * 31) % 17) as f32 / 4.0 - 2.0
}

fn launch(text: &str, args: &[Arg], memory: &Memory) -> Result<u64, Box<Fault>> {
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let shape = Launch::new([1, 1, 1], [128, 1, 1]);
    let report = module.kernel("k").unwrap().launch(&shape, args, memory)?;
    let counters = report.counters;
    assert_eq!(counters.wgmma, 4);
    Ok(counters.shared_wavefronts - counters.shared_ideal)
}

/// Checks a product; gives the passes over shared memory that conflicts of banks cost.
fn check(n: usize, ty: &str, layouts: [Layout; 2], from_registers: bool, adds: bool) -> u64 {
    let encode: fn(f32) -> u16 = match ty {
        "bf16" => |x| bf16::from_f32(x).to_bits(),
        _ => |x| f16::from_f32(x).to_bits(),
    };
    let a: Vec<f32> = (0..64 * 16).map(small).collect();
    let b: Vec<f32> = (0..n * 16).map(|i| small(i + 5)).collect();
    // As `mma.m16n8k16` has them: warp w has rows 16w..16w + 15.
    let mut fragments = Vec::new();
    for thread in 0..128 {
        let (warp, g, t) = (thread / 32, thread % 32 / 4, thread % 4);
        for word in 0..4 {
            let row = 16 * warp + g + word % 2 * 8;
            let k = 2 * t + word / 2 * 8;
            let [low, high] = [0, 1].map(|i| u32::from(encode(a[16 * row + k + i])));
            fragments.push(high << 16 | low);
        }
    }
    let mut memory = Memory::new();
    let args = [
        Arg::from(memory.upload(&layouts[0].lay(&a, 64, encode))),
        Arg::from(memory.upload(&layouts[1].lay(&b, n, encode))),
        Arg::from(memory.upload(&fragments)),
    ];
    let out = memory.alloc(128 * n / 2 * 4);
    let args = [args.as_slice(), &[Arg::from(out)]].concat();
    let text = text(n, ty, layouts, from_registers, adds);
    let conflicts = launch(&text, &args, &memory).unwrap_or_else(|fault| panic!("{fault}"));
    let found = memory.download::<f32>(out, 128 * n / 2).unwrap();
    for (at, found) in found.into_iter().enumerate() {
        let (thread, i) = (at / (n / 2), at % (n / 2));
        let (warp, g, t) = (thread / 32, thread % 32 / 4, thread % 4);
        let (row, column) = (16 * warp + g + i % 4 / 2 * 8, i / 4 * 8 + 2 * t + i % 2);
        let products = (0..16).map(|k| a[16 * row + k] * b[16 * column + k]);
        let expected = products.sum::<f32>() + if adds { 1.0 } else { 0.0 };
        assert_eq!(found, expected, "{layouts:?}, row {row}, column {column}");
    }
    conflicts
}

#[test]
fn both_types_and_all_layouts() {
    let wide = |width: usize, offset: usize| Layout { width, offset };
    check(8, "bf16", [PLAIN, PLAIN], false, true);
    check(24, "f16", [PLAIN, wide(64, 32)], false, false);
    check(256, "bf16", [wide(32, 0), wide(128, 96)], false, true);
    check(40, "bf16", [wide(128, 32), wide(64, 0)], true, true);
    check(16, "f16", [wide(64, 0), wide(32, 0)], true, false);
    for width in [64, 128] {
        let conflicts = check(64, "f16", [wide(width, 32); 2], false, true);
        assert_eq!(conflicts, 0, "{width}");
    }
}

/// The kernel with one piece of text exchanged.
fn changed(from: &str, to: &str) -> FaultKind {
    let text = text(8, "bf16", [PLAIN, PLAIN], false, true);
    assert!(text.contains(from), "{from}");
    let mut memory = Memory::new();
    let [a, b] = [64, 8].map(|n| memory.upload(&vec![0_u8; n * 32]));
    let fragments = memory.upload(&[0_u32; 512]);
    let out = memory.alloc(128 * 16);
    let args = [a, b, fragments, out].map(Arg::from);
    launch(&text.replacen(from, to, 1), &args, &memory)
        .unwrap_err()
        .kind
}

#[test]
fn what_must_stand_around_a_product() {
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let commit = "wgmma.commit_group.sync.aligned;";
    assert_eq!(changed(wait, ""), FaultKind::RegisterInFlight);
    // A group too few is waited for; one that holds nothing.
    assert_eq!(
        changed(wait, "wgmma.wait_group.sync.aligned 1;"),
        FaultKind::RegisterInFlight
    );
    assert_eq!(changed(commit, ""), FaultKind::RegisterInFlight);
    assert_eq!(
        changed("wgmma.fence.sync.aligned;", ""),
        FaultKind::MissingFence
    );
    let fence = "fence.proxy.async.shared::cta;\n    bar.sync 0;";
    let found = changed(fence, "bar.sync 0;");
    assert!(matches!(found, FaultKind::ProxyFence { .. }), "{found}");
    // The fence is too late for the others.
    let found = changed(fence, "bar.sync 0; fence.proxy.async.shared::cta;");
    assert!(matches!(found, FaultKind::ProxyFence { .. }), "{found}");
    let found = changed(fence, "fence.proxy.async.shared::cta;");
    assert!(
        matches!(
            found,
            FaultKind::Race { .. } | FaultKind::Uninitialised { .. }
        ),
        "{found}"
    );
    let found = changed(wait, "ret;");
    assert!(
        found.to_string().contains("nobody waited for a wgmma"),
        "{found}"
    );
    let found = changed(
        "wgmma.fence.sync.aligned;",
        "setp.ge.u32 %p3, %lane, 96; @%p3 ret; wgmma.fence.sync.aligned;",
    );
    assert!(found.to_string().contains("not all warps"), "{found}");
    // One lane has another descriptor than its warp, one warp keeps its sums.
    let found = changed(
        "wgmma.fence.sync.aligned;",
        "setp.eq.u32 %p3, %lane, 9; @%p3 mov.b64 %d3, %d2; wgmma.fence.sync.aligned;",
    );
    assert!(
        found.to_string().contains("differs between lanes"),
        "{found}"
    );
    let found = changed("setp.eq.u32 %p2, 1, 1;", "setp.ge.u32 %p2, %lane, 32;");
    assert!(found.to_string().contains("scale-d"), "{found}");
    let found = changed(
        "wgmma.fence.sync.aligned;",
        "setp.ge.u32 %p3, %lane, 7; @%p3 wgmma.fence.sync.aligned;",
    );
    assert!(matches!(found, FaultKind::InactiveLanes { .. }), "{found}");
}

/// Products in flight that share registers.
#[test]
fn sums_of_products_in_flight() {
    let product = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16";
    let commit = "wgmma.commit_group.sync.aligned;";
    let after = |more: &str| {
        let plain = text(8, "bf16", [PLAIN, PLAIN], false, true);
        let mut memory = Memory::new();
        let [a, b] = [64, 8].map(|n| memory.upload(&vec![0_u8; n * 32]));
        let fragments = memory.upload(&[0_u32; 512]);
        let args = [a, b, fragments, memory.alloc(128 * 16)].map(Arg::from);
        let text = plain.replacen(commit, &format!("{product} {more}; {commit}"), 1);
        let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let shape = Launch::new([1, 1, 1], [128, 1, 1]);
        let done = module.kernel("k").unwrap().launch(&shape, &args, &memory);
        done.map(|_| ()).map_err(|fault| fault.kind)
    };
    let sums = "{%f0, %f1, %f2, %f3}";
    assert_eq!(after(&format!("{sums}, %d2, %d3, %p2, 1, 1, 0, 0")), Ok(()));
    for shared in [
        // The same sums in another order, some of them, and sums as an operand.
        "{%f1, %f0, %f2, %f3}, %d2, %d3, %p2, 1, 1, 0, 0",
        "{%f4, %f5, %f6, %f0}, %d2, %d3, %p2, 1, 1, 0, 0",
        "{%f4, %f5, %f6, %f7}, {%f0, %f1, %f2, %f3}, %d3, %p2, 1, 1, 0",
    ] {
        assert_eq!(after(shared), Err(FaultKind::RegisterInFlight), "{shared}");
    }
}

#[test]
fn other_forms_are_refused_by_name() {
    for (n, from, to, named) in [
        (8, "m64n8k16", "m64n12k16", "that shape"),
        (
            8,
            "f32.bf16.bf16",
            "f16.f16.f16",
            "that combination of types",
        ),
        (8, ", 1, 1, 0, 0;", ", 1, 1, 1, 0;", "transposed"),
        (8, ", 1, 1, 0, 0;", ", 1, -1, 0, 0;", "negated"),
        (16, "m64n16k16", "m64n8k16", "do not fit"),
    ] {
        let text = text(n, "bf16", [PLAIN, PLAIN], false, true);
        let error = Module::parse(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}
