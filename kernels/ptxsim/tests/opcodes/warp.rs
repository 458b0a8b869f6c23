//! Exchange between lanes, divergence, and the faults of both.

use crate::harness::{inputs, run, try_run};
use ptxsim::FaultKind;

fn words(inputs: &[[u64; 3]; 32]) -> [u32; 32] {
    inputs.map(|[a, _, _]| a as u32)
}

#[test]
fn shuffles() {
    let inputs = inputs(3, &[]);
    let x = words(&inputs);
    let of = |text: &str| run(&format!("{text} cvt.u64.u32 %out, %r0;"), &inputs).map(|v| v as u32);
    let butterfly = of("shfl.sync.bfly.b32 %r0, %x, 5, 31, -1;");
    let down = of("shfl.sync.down.b32 %r0, %x, 3, 31, -1;");
    let up = of("shfl.sync.up.b32 %r0, %x, 3, 0, -1;");
    let index = of("shfl.sync.idx.b32 %r0, %x, 9, 31, -1;");
    // Segments of eight lanes: the mask 0b11000 in bits 8.., clamp 31.
    let segment = of("shfl.sync.idx.b32 %r0, %x, 2, 0x181f, -1;");
    let inside = of("shfl.sync.down.b32 %r1|%p1, %x, 30, 31, -1; selp.u32 %r0, 1, 0, %p1;");
    for lane in 0..32 {
        assert_eq!(butterfly[lane], x[lane ^ 5]);
        assert_eq!(down[lane], x[if lane + 3 < 32 { lane + 3 } else { lane }]);
        assert_eq!(up[lane], x[if lane >= 3 { lane - 3 } else { lane }]);
        assert_eq!(index[lane], x[9]);
        assert_eq!(segment[lane], x[lane / 8 * 8 + 2]);
        assert_eq!(inside[lane], u32::from(lane < 2));
    }
}

#[test]
fn votes_and_reductions() {
    let inputs = inputs(4, &[1, 2]);
    let x = words(&inputs);
    let of = |text: &str| run(&format!("{text} cvt.u64.u32 %out, %r0;"), &inputs).map(|v| v as u32);
    let odd = |lane: usize| x[lane] & 1 == 1;
    let ballot = (0..32).fold(0u32, |mask, lane| mask | u32::from(odd(lane)) << lane);
    let test = "and.b32 %r1, %x, 1; setp.eq.u32 %p1, %r1, 1;";
    assert_eq!(
        of(&format!("{test} vote.sync.ballot.b32 %r0, %p1, -1;")),
        [ballot; 32]
    );
    let any = of(&format!(
        "{test} vote.sync.any.pred %p2, !%p1, -1; selp.u32 %r0, 1, 0, %p2;"
    ));
    assert_eq!(any, [u32::from(ballot != u32::MAX); 32]);
    let equal = of("match.any.sync.b32 %r0, %x, -1;");
    for lane in 0..32 {
        let same = (0..32).filter(|other| x[*other] == x[lane]);
        assert_eq!(equal[lane], same.fold(0, |mask, other| mask | 1 << other));
    }
    let sum = of("redux.sync.add.s32 %r0, %x, -1;");
    assert_eq!(
        sum,
        [x.iter().fold(0u32, |sum, value| sum.wrapping_add(*value)); 32]
    );
    let least = of("redux.sync.min.s32 %r0, %x, -1;");
    assert_eq!(
        least[0] as i32,
        x.iter().map(|value| *value as i32).min().unwrap()
    );
}

#[test]
fn lanes_part_and_meet() {
    // Each lane counts to its own number; then all of them vote.
    let out = run(
        "
        mov.u32 %r0, 0;
    again:
        setp.ge.u32 %p1, %r0, %lane;
        @%p1 bra done;
        add.u32 %r0, %r0, 1;
        bra again;
    done:
        activemask.b32 %r1;
        mov.b64 %out, {%r0, %r1};",
        &[[0; 3]; 32],
    );
    for (lane, value) in out.into_iter().enumerate() {
        assert_eq!(value, 0xFFFF_FFFF << 32 | lane as u64);
    }
}

#[test]
fn jumps_by_table() {
    let out = run(
        "
        and.b32 %r0, %lane, 3;
    table: .branchtargets zero, one, two, two;
        brx.idx %r0, table;
    zero:
        mov.u64 %out, 10;
        bra.uni end;
    one:
        mov.u64 %out, 11;
        bra.uni end;
    two:
        mov.u64 %out, 12;
    end:",
        &[[0; 3]; 32],
    );
    for (lane, value) in out.into_iter().enumerate() {
        assert_eq!(value, [10, 11, 12, 12][lane % 4]);
    }
}

#[test]
fn scopes_of_inline_assembly() {
    let asm = "{ .reg .pred %p1; .reg .b32 t; setp.lt.u32 %p1, %lane, 4; mov.u32 t, 1; @%p1 bra skip; mov.u32 t, 2; skip: add.u32 %r0, %r0, t; }";
    let body = format!(
        "mov.u32 %r0, 0; setp.lt.u32 %p1, %lane, 8; {asm} {asm} selp.u32 %r1, 100, 0, %p1; add.u32 %r0, %r0, %r1; cvt.u64.u32 %out, %r0;"
    );
    let out = run(&body, &[[0; 3]; 32]);
    assert_eq!((out[0], out[5], out[9]), (102, 104, 4));
}

fn fault(body: &str) -> (FaultKind, u32) {
    let fault = try_run(body, &[[7, 0, 0]; 32]).expect_err(body);
    (fault.kind, fault.thread.unwrap())
}

#[test]
fn wrong_members() {
    let (kind, thread) = fault("shfl.sync.bfly.b32 %r0, %x, 1, 31, 0xffff;");
    assert_eq!(
        (kind, thread),
        (
            FaultKind::MemberMask {
                mask: 0xFFFF,
                active: u32::MAX
            },
            0
        )
    );
    let half = "setp.lt.u32 %p1, %lane, 16; @%p1";
    let (kind, _) = fault(&format!("{half} shfl.sync.bfly.b32 %r0, %x, 1, 31, -1;"));
    assert_eq!(
        kind,
        FaultKind::MemberMask {
            mask: u32::MAX,
            active: 0xFFFF
        }
    );
    let (kind, thread) = fault(&format!(
        "{half} shfl.sync.idx.b32 %r0, %x, 20, 31, 0xffff;"
    ));
    assert_eq!(
        (kind, thread),
        (FaultKind::ShuffleSource { source_lane: 20 }, 0)
    );
    let (kind, _) = fault(&format!("{half} bar.warp.sync -1;"));
    assert_eq!(
        kind,
        FaultKind::MemberMask {
            mask: u32::MAX,
            active: 0xFFFF
        }
    );
}

#[test]
fn wrong_arithmetic_and_barriers() {
    let (kind, thread) = fault("sub.u32 %r1, %lane, 9; div.u32 %r0, %x, %r1;");
    assert_eq!((kind, thread), (FaultKind::DivisionByZero, 9));
    let (kind, _) = fault("setp.lt.u32 %p1, %lane, 16; @%p1 bar.sync 0;");
    assert_eq!(
        kind,
        FaultKind::DivergentBarrier {
            active: 0xFFFF,
            expected: u32::MAX
        }
    );
    let (kind, _) = fault("bar.sync 1, 64;");
    assert!(matches!(kind, FaultKind::Deadlock { .. }), "{kind}");
    let (kind, _) = fault("trap;");
    assert_eq!(kind, FaultKind::Trap);
}
