//! Integer instructions against their definition.

use crate::harness::{check32, check64};

const EDGES: [u32; 8] = [0, 1, 2, 31, 0x7FFF_FFFF, 0x8000_0000, u32::MAX, 0xFFFF];
const EDGES64: [u64; 6] = [0, 1, 63, i64::MAX as u64, 1 << 63, u64::MAX];

/// A body that puts the result of one word instruction into the output.
fn word(instruction: &str) -> String {
    format!("{instruction}\n cvt.u64.u32 %out, %r0;")
}

#[test]
fn sums_and_products() {
    let op = |text: &str, f: fn(u32, u32, u32) -> u32| check32(&word(text), &EDGES, f);
    op("add.s32 %r0, %x, %y;", |a, b, _| a.wrapping_add(b));
    op("sub.u32 %r0, %x, 7;", |a, _, _| a.wrapping_sub(7));
    op("mul.lo.s32 %r0, %x, %y;", |a, b, _| a.wrapping_mul(b));
    op("mul.hi.u32 %r0, %x, %y;", |a, b, _| {
        ((u64::from(a) * u64::from(b)) >> 32) as u32
    });
    op("mul.hi.s32 %r0, %x, %y;", |a, b, _| {
        ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
    });
    op("mad.lo.s32 %r0, %x, %y, %z;", |a, b, c| {
        a.wrapping_mul(b).wrapping_add(c)
    });
    op("mad.hi.u32 %r0, %x, %y, %z;", |a, b, c| {
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
    });
    op("min.s32 %r0, %x, %y;", |a, b, _| {
        (a as i32).min(b as i32) as u32
    });
    op("max.u32 %r0, %x, -5;", |a, _, _| a.max(-5i32 as u32));
    op("abs.s32 %r0, %x;", |a, _, _| {
        (a as i32).wrapping_abs() as u32
    });
    op("neg.s32 %r0, %x;", |a, _, _| a.wrapping_neg());
    op("sad.u32 %r0, %x, %y, %z;", |a, b, c| {
        a.abs_diff(b).wrapping_add(c)
    });
    op("add.sat.s32 %r0, %x, %y;", |a, b, _| {
        (a as i32).saturating_add(b as i32) as u32
    });
    let wide = |text: &str, f: fn(u64, u64, u64) -> u64| check64(text, &EDGES64, f);
    wide("mul.wide.s32 %out, %x, %y;", |a, b, _| {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    });
    wide("mad.wide.u32 %out, %x, %y, %c;", |a, b, c| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    wide("mul.hi.s64 %out, %a, %b;", |a, b, _| {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    });
    wide("mul.hi.u64 %out, %a, %b;", |a, b, _| {
        ((u128::from(a) * u128::from(b)) >> 64) as u64
    });
    wide("mad.lo.s64 %out, %a, %b, %c;", |a, b, c| {
        a.wrapping_mul(b).wrapping_add(c)
    });
    wide("max.s64 %out, %a, %b;", |a, b, _| {
        (a as i64).max(b as i64) as u64
    });
}

#[test]
fn quotients() {
    let op = |text: &str, f: fn(u32, u32, u32) -> u32| {
        let body = format!("max.u32 %y, %y, 1;\n{text}\n cvt.u64.u32 %out, %r0;");
        check32(&body, &EDGES, f);
    };
    op("div.u32 %r0, %x, %y;", |a, b, _| a / b.max(1));
    op("rem.u32 %r0, %x, %y;", |a, b, _| a % b.max(1));
    op("div.s32 %r0, %x, %y;", |a, b, _| {
        (a as i32).wrapping_div(b.max(1) as i32) as u32
    });
    op("rem.s32 %r0, %x, %y;", |a, b, _| {
        (a as i32).wrapping_rem(b.max(1) as i32) as u32
    });
    check64(
        "max.u64 %b, %b, 1; div.s64 %out, %a, %b;",
        &EDGES64,
        |a, b, _| (a as i64).wrapping_div(b.max(1) as i64) as u64,
    );
}

#[test]
fn shifts_and_fields() {
    let op = |text: &str, f: fn(u32, u32, u32) -> u32| check32(&word(text), &EDGES, f);
    op(
        "shl.b32 %r0, %x, %y;",
        |a, n, _| if n > 31 { 0 } else { a << n },
    );
    op(
        "shr.u32 %r0, %x, %y;",
        |a, n, _| if n > 31 { 0 } else { a >> n },
    );
    op("shr.s32 %r0, %x, %y;", |a, n, _| {
        ((a as i32) >> n.min(31)) as u32
    });
    op("shf.l.wrap.b32 %r0, %x, %y, %z;", |a, b, n| {
        ((u64::from(b) << 32 | u64::from(a)) << (n & 31) >> 32) as u32
    });
    op("shf.r.clamp.b32 %r0, %x, %y, %z;", |a, b, n| {
        ((u64::from(b) << 32 | u64::from(a)) >> n.min(32)) as u32
    });
    op("bfe.u32 %r0, %x, 4, 9;", |a, _, _| a >> 4 & 0x1FF);
    op("bfe.s32 %r0, %x, 28, 9;", |a, _, _| {
        ((a as i32) >> 28) as u32
    });
    op("bfi.b32 %r0, %x, %y, 12, 5;", |a, b, _| {
        b & !(0x1F << 12) | (a & 0x1F) << 12
    });
    op("prmt.b32 %r0, %x, %y, 0x6240;", |a, b, _| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        u32::from_le_bytes([a[0], b[0], a[2], b[2]])
    });
    op("lop3.b32 %r0, %x, %y, %z, 0x1E;", |a, b, c| a ^ (b | c));
    op("popc.b32 %r0, %x;", |a, _, _| a.count_ones());
    op("clz.b32 %r0, %x;", |a, _, _| a.leading_zeros());
    op("brev.b32 %r0, %x;", |a, _, _| a.reverse_bits());
    op("bfind.u32 %r0, %x;", |a, _, _| {
        31u32.wrapping_sub(a.leading_zeros())
    });
    op("not.b32 %r0, %x;", |a, _, _| !a);
    check64("shr.s64 %out, %a, %y;", &EDGES64, |a, n, _| {
        ((a as i64) >> (n as u32).min(63)) as u64
    });
    check64("xor.b64 %out, %a, %b;", &EDGES64, |a, b, _| a ^ b);
    check64(
        "popc.b64 %r0, %a; cvt.u64.u32 %out, %r0;",
        &EDGES64,
        |a, _, _| u64::from(a.count_ones()),
    );
}

#[test]
fn dot_products_of_bytes() {
    let dot = |a: u32, b: u32, c: u32, f: fn(u8) -> i32| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        (0..4).fold(c as i32, |sum, at| sum.wrapping_add(f(a[at]) * f(b[at]))) as u32
    };
    check32(&word("dp4a.s32.s32 %r0, %x, %y, %z;"), &EDGES, |a, b, c| {
        dot(a, b, c, |byte| i32::from(byte as i8))
    });
    check32(&word("dp4a.u32.u32 %r0, %x, %y, %z;"), &EDGES, |a, b, c| {
        dot(a, b, c, i32::from)
    });
}

#[test]
fn comparisons_and_selection() {
    let op = |text: &str, f: fn(u32, u32, u32) -> u32| check32(&word(text), &EDGES, f);
    op(
        "setp.lt.s32 %p1, %x, %y; selp.b32 %r0, 5, %z, %p1;",
        |a, b, c| {
            if (a as i32) < b as i32 { 5 } else { c }
        },
    );
    op(
        "setp.hs.u32 %p1, %x, %y; selp.b32 %r0, 1, 0, %p1;",
        |a, b, _| u32::from(a >= b),
    );
    op(
        "setp.eq.s32 %p2, %z, 0; setp.ne.and.s32 %p1|%p3, %x, %y, !%p2; selp.b32 %r0, 1, 0, %p1; @%p3 add.s32 %r0, %r0, 2;",
        |a, b, c| u32::from(a != b && c != 0) + if a == b && c != 0 { 2 } else { 0 },
    );
    op("set.gt.u32.s32 %r0, %x, %y;", |a, b, _| {
        if a as i32 > b as i32 { u32::MAX } else { 0 }
    });
    op(
        "setp.lt.u32 %p1, %x, %y; not.pred %p2, %p1; mov.u32 %r0, 0; @!%p2 mov.u32 %r0, 3;",
        |a, b, _| {
            if a < b { 3 } else { 0 }
        },
    );
    op("slct.b32.s32 %r0, %x, %y, %z;", |a, b, c| {
        if c as i32 >= 0 { a } else { b }
    });
}

#[test]
fn halves_of_registers() {
    let op = |text: &str, f: fn(u32, u32, u32) -> u32| check32(&word(text), &EDGES, f);
    op(
        "mov.b32 {%h0, %h1}, %x; mov.b32 %r0, {%h1, %h0};",
        |a, _, _| a.rotate_left(16),
    );
    op(
        "cvt.u16.u32 %h0, %x; cvt.u16.u32 %h1, %y; add.s16 %h2, %h0, %h1; cvt.u32.u16 %r0, %h2;",
        |a, b, _| u32::from((a as u16).wrapping_add(b as u16)),
    );
    op(
        "cvt.u16.u32 %h0, %x; shr.s16 %h2, %h0, 3; cvt.s32.s16 %r0, %h2;",
        |a, _, _| i32::from((a as i16) >> 3) as u32,
    );
    op("cvt.s8.s32 %r0, %x;", |a, _, _| a as i8 as i32 as u32);
    op("cvt.u8.u32 %r0, %x;", |a, _, _| u32::from(a as u8));
    op("cvt.sat.s8.s32 %r0, %x;", |a, _, _| {
        (a as i32).clamp(-128, 127) as u32
    });
    op(
        "mul.wide.s16 %r0, %h0, 1; cvt.u16.u32 %h0, %x; mul.wide.s16 %r0, %h0, -3;",
        |a, _, _| (i32::from(a as i16) * -3) as u32,
    );
    check64(
        "mov.b64 {%r0, %r1}, %a; mov.b64 %out, {%r1, %r0};",
        &EDGES64,
        |a, _, _| a.rotate_left(32),
    );
    check64("cvt.s64.s32 %out, %x;", &EDGES64, |a, _, _| {
        i64::from(a as i32) as u64
    });
}
