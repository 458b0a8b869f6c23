//! Float instructions and conversions against their definition.

use crate::harness::{check32, check64};
use half::{bf16, f16};

const EDGES: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.5,
    3.5,
    1e-40,
    448.0,
    70000.0,
    -3e9,
    f32::INFINITY,
    f32::NAN,
];

fn op(text: &str, f: fn(f32, f32, f32) -> f32) {
    let edges = EDGES.map(f32::to_bits);
    let body = format!("{text}\n cvt.u64.u32 %out, %r0;");
    let canonical = |value: f32| if value.is_nan() { f32::NAN } else { value }.to_bits();
    // A NaN's payload is nobody's business.
    let body = format!("{body}\n setp.nan.f32 %p7, %r0, %r0; @%p7 mov.u64 %out, 0x7fc00000;");
    check32(&body, &edges, |a, b, c| {
        canonical(f(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c)))
    });
}

fn bits(text: &str, f: fn(u32, u32, u32) -> u32) {
    let edges = EDGES.map(f32::to_bits);
    check32(&format!("{text}\n cvt.u64.u32 %out, %r0;"), &edges, f);
}

#[test]
fn arithmetic() {
    op("add.f32 %r0, %x, %y;", |a, b, _| a + b);
    op("sub.rn.f32 %r0, %x, 0f3F800000;", |a, _, _| a - 1.0);
    op("mul.f32 %r0, %x, %y;", |a, b, _| a * b);
    op("fma.rn.f32 %r0, %x, %y, %z;", f32::mul_add);
    op("div.rn.f32 %r0, %x, %y;", |a, b, _| a / b);
    op("abs.f32 %r0, %x;", |a, _, _| a.abs());
    op("neg.f32 %r0, %x;", |a, _, _| -a);
    op("sqrt.rn.f32 %r0, %x;", |a, _, _| a.sqrt());
    op("rcp.rn.f32 %r0, %x;", |a, _, _| 1.0 / a);
    op("min.f32 %r0, %x, %y;", |a, b, _| match () {
        () if a.is_nan() => b,
        () if b.is_nan() => a,
        () if a == 0.0 && b == 0.0 && a.is_sign_negative() => a,
        () if a == 0.0 && b == 0.0 => b,
        () => {
            if a < b {
                a
            } else {
                b
            }
        }
    });
    op("max.NaN.f32 %r0, %x, %y;", |a, b, _| match () {
        () if a.is_nan() || b.is_nan() => f32::NAN,
        () if a == 0.0 && b == 0.0 && a.is_sign_negative() => b,
        () => {
            if a >= b {
                a
            } else {
                b
            }
        }
    });
    op("copysign.f32 %r0, %x, %y;", |a, b, _| b.copysign(a));
    op("cvt.sat.f32.f32 %r0, %x;", |a, _, _| {
        if a.is_nan() {
            0.0
        } else {
            a.clamp(0.0, 1.0) + 0.0
        }
    });
    op("cvt.rni.f32.f32 %r0, %x;", |a, _, _| a.round_ties_even());
    op("cvt.rmi.f32.f32 %r0, %x;", |a, _, _| a.floor());
}

#[test]
fn doubles() {
    let edges = [1.5f64, -0.0, 1e300, f64::INFINITY].map(f64::to_bits);
    let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value }.to_bits();
    let nan = "setp.nan.f64 %p7, %out, %out; @%p7 mov.u64 %out, 0x7ff8000000000000;";
    let double = |text: &str, f: fn(f64, f64, f64) -> f64| {
        check64(&format!("{text} {nan}"), &edges, |a, b, c| {
            canonical(f(f64::from_bits(a), f64::from_bits(b), f64::from_bits(c)))
        });
    };
    double("fma.rn.f64 %out, %a, %b, %c;", f64::mul_add);
    double("div.rn.f64 %out, %a, %b;", |a, b, _| a / b);
    double("cvt.f64.f32 %out, %x;", |a, _, _| {
        f64::from(f32::from_bits(a.to_bits() as u32))
    });
    double("cvt.rn.f64.s64 %out, %a;", |a, _, _| {
        a.to_bits() as i64 as f64
    });
}

#[test]
fn flushed_and_directed() {
    let flush = |a: f32| {
        if a.is_subnormal() {
            0f32.copysign(a)
        } else {
            a
        }
    };
    let edges = EDGES.map(f32::to_bits);
    check32(
        "mul.ftz.f32 %r0, %x, 0f3F800000; cvt.u64.u32 %out, %r0; setp.nan.f32 %p7, %r0, %r0; @%p7 mov.u64 %out, 1;",
        &edges,
        |a, _, _| {
            let a = f32::from_bits(a);
            if a.is_nan() { 1 } else { flush(a).to_bits() }
        },
    );
    // The sum of 1 and a tiny number, rounded down and up.
    op("add.rm.f32 %r0, 0f3F800000, 0f8D000000;", |_, _, _| {
        1f32.next_down()
    });
    op("add.rp.f32 %r0, 0f3F800000, 0f0D000000;", |_, _, _| {
        1f32.next_up()
    });
    op(
        "fma.rm.f32 %r0, 0f3F800001, 0f3F800001, 0f00000000;",
        |_, _, _| {
            // (1 + e)^2 = 1 + 2e + e^2
            1f32.next_up().next_up()
        },
    );
    op(
        "fma.rp.f32 %r0, 0f3F800001, 0f3F800001, 0f00000000;",
        |_, _, _| 1f32.next_up().next_up().next_up(),
    );
    op("div.rz.f32 %r0, 0f3F800000, 0fC0400000;", |_, _, _| {
        let third = -1f32 / 3.0;
        if f64::from(third) < -1.0 / 3.0 {
            third.next_up()
        } else {
            third
        }
    });
}

#[test]
fn comparisons_with_nan() {
    for (name, f) in [
        ("lt", (|a, b| a < b) as fn(f32, f32) -> bool),
        ("geu", |a, b| a >= b || a.is_nan() || b.is_nan()),
        ("ne", |a, b| a != b && !a.is_nan() && !b.is_nan()),
        ("neu", |a, b| a != b),
        ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ] {
        let text = format!("setp.{name}.f32 %p1, %x, %y; selp.b64 %out, 1, 0, %p1;");
        check32(&text, &EDGES.map(f32::to_bits), |a, b, _| {
            u32::from(f(f32::from_bits(a), f32::from_bits(b)))
        });
    }
    bits("set.lt.f32.f32 %r0, %x, %y;", |a, b, _| {
        if f32::from_bits(a) < f32::from_bits(b) {
            1f32.to_bits()
        } else {
            0
        }
    });
}

#[test]
fn conversions_to_and_from_integers() {
    bits("cvt.rzi.s32.f32 %r0, %x;", |a, _, _| {
        f32::from_bits(a) as i32 as u32
    });
    bits("cvt.rni.s32.f32 %r0, %x;", |a, _, _| {
        f32::from_bits(a).round_ties_even() as i32 as u32
    });
    bits("cvt.rpi.u32.f32 %r0, %x;", |a, _, _| {
        f32::from_bits(a).ceil() as u32
    });
    bits("cvt.rni.s8.f32 %r0, %x;", |a, _, _| {
        f32::from_bits(a).round_ties_even() as i8 as i32 as u32
    });
    bits("cvt.rn.f32.s32 %r0, %x;", |a, _, _| {
        (a as i32 as f32).to_bits()
    });
    bits("cvt.rn.f32.u8 %r0, %x;", |a, _, _| {
        f32::from(a as u8).to_bits()
    });
    bits("cvt.rp.f32.u32 %r0, %x;", |a, _, _| {
        let near = a as f32;
        let up = if f64::from(near) < f64::from(a) {
            near.next_up()
        } else {
            near
        };
        up.to_bits()
    });
}

#[test]
fn sixteen_bits() {
    bits(
        "mov.b32 {%h0, %h1}, %x; cvt.f32.bf16 %r0, %h1;",
        |a, _, _| a & 0xFFFF_0000,
    );
    bits(
        "cvt.rn.bf16.f32 %h0, %x; cvt.u32.u16 %r0, %h0;",
        |a, _, _| {
            let a = f32::from_bits(a);
            u32::from(if a.is_nan() {
                0x7FFF
            } else {
                bf16::from_f32(a).to_bits()
            })
        },
    );
    bits(
        "cvt.rn.f16.f32 %h0, %x; cvt.u32.u16 %r0, %h0;",
        |a, _, _| {
            let a = f32::from_bits(a);
            u32::from(if a.is_nan() {
                0x7FFF
            } else {
                f16::from_f32(a).to_bits()
            })
        },
    );
    bits("cvt.rn.bf16x2.f32 %r0, %x, %y;", |a, b, _| {
        let half = |a: u32| {
            let a = f32::from_bits(a);
            u32::from(if a.is_nan() {
                0x7FFF
            } else {
                bf16::from_f32(a).to_bits()
            })
        };
        half(a) << 16 | half(b)
    });
    bits("fma.rn.bf16x2 %r0, %x, %y, %z;", |a, b, c| {
        let half = |a: u32, b: u32, c: u32| {
            let wide = |bits: u32| bf16::from_bits(bits as u16).to_f64();
            let value = wide(a).mul_add(wide(b), wide(c));
            u32::from(if value.is_nan() {
                0x7FFF
            } else {
                bf16::from_f64(value).to_bits()
            })
        };
        half(a >> 16, b >> 16, c >> 16) << 16 | half(a, b, c)
    });
    bits("add.f16x2 %r0, %x, %y;", |a, b, _| {
        let half = |a: u32, b: u32| {
            let sum = f16::from_bits(a as u16).to_f32() + f16::from_bits(b as u16).to_f32();
            u32::from(if sum.is_nan() {
                0x7FFF
            } else {
                f16::from_f32(sum).to_bits()
            })
        };
        half(a >> 16, b >> 16) << 16 | half(a, b)
    });
    bits("neg.bf16x2 %r0, %x;", |a, _, _| a ^ 0x8000_8000);
}

/// The byte format by its definition: sign, exponent, mantissa.
fn e4m3(byte: u32) -> f32 {
    let sign = if byte & 0x80 != 0 { -1f32 } else { 1.0 };
    let (exponent, mantissa) = ((byte >> 3 & 15) as i32, (byte & 7) as f32);
    match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-9),
        _ => sign * (8.0 + mantissa) * 2f32.powi(exponent - 10),
    }
}

#[test]
fn eight_bits() {
    bits(
        "cvt.u16.u32 %h0, %x; cvt.rn.f16x2.e4m3x2 %r0, %h0;",
        |a, _, _| {
            let half = |byte: u32| {
                let value = e4m3(byte);
                u32::from(if value.is_nan() {
                    0x7FFF
                } else {
                    f16::from_f32(value).to_bits()
                })
            };
            half(a >> 8 & 255) << 16 | half(a & 255)
        },
    );
    bits(
        "cvt.rn.satfinite.e4m3x2.f32 %h0, %x, %y; cvt.u32.u16 %r0, %h0;",
        |a, b, _| {
            let byte = |bits: u32| {
                let value = f32::from_bits(bits);
                if value.is_nan() {
                    return 0x7F;
                }
                // The nearest of all bytes; of two the even one.
                let distance =
                    |byte: u32| (f64::from(e4m3(byte)) - f64::from(value.abs().min(448.0))).abs();
                let best = (0..0x7F).map(distance).fold(f64::INFINITY, f64::min);
                let near: Vec<u32> = (0..0x7F).filter(|byte| distance(*byte) == best).collect();
                let even = near.iter().find(|byte| **byte % 2 == 0).or(near.first());
                even.copied().unwrap() | (bits >> 31) << 7
            };
            byte(a) << 8 | byte(b)
        },
    );
}

#[test]
fn functions() {
    // Approximate on the device, so compared with a tolerance.
    for (name, f) in [
        ("ex2.approx.ftz", f64::exp2 as fn(f64) -> f64),
        ("lg2.approx", f64::log2),
        ("sin.approx", f64::sin),
        ("cos.approx", f64::cos),
        ("tanh.approx", f64::tanh),
        ("rsqrt.approx", |a| 1.0 / a.sqrt()),
        ("sqrt.approx", f64::sqrt),
        ("rcp.approx.ftz", |a| 1.0 / a),
    ] {
        for value in [0.25f32, 0.5, 1.75, 3.0, 10.5] {
            let text = format!(
                "{name}.f32 %r0, 0f{:08X}; cvt.u64.u32 %out, %r0;",
                value.to_bits()
            );
            let out = crate::harness::run(&text, &[[0; 3]; 32]);
            let (got, expected) = (f32::from_bits(out[31] as u32), f(f64::from(value)));
            assert!(
                (f64::from(got) - expected).abs() <= 1e-6 * expected.abs(),
                "{name} {value}"
            );
        }
    }
}
