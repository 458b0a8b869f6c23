//! Barriers in shared memory and bulk copies.

use ptxsim::{Arg, Counters, Fault, FaultKind, Launch, Memory, Module};

use crate::harness::{run, try_run};

/// A barrier in `tile` for so many arrivals, known to all lanes.
fn with_barrier(n_arrivals: u32, body: &str) -> String {
    format!(
        "mov.u32 %r0, tile; setp.eq.u32 %p1, %lane, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r0], {n_arrivals};
        bar.warp.sync -1;
        {body}"
    )
}

fn fault(body: &str) -> FaultKind {
    try_run(body, &[[0; 3]; 32]).unwrap_err().kind
}

#[test]
fn phases_end_with_arrivals_and_bytes() {
    let passed = |wait: &str| {
        let body = with_barrier(
            32,
            &format!(
                "mbarrier.arrive.shared::cta.b64 %d0, [%r0];
                {wait}
                selp.u64 %out, 1, 0, %p2;"
            ),
        );
        run(&body, &[[0; 3]; 32])
    };
    let by_token = "mbarrier.try_wait.shared::cta.b64 %p2, [%r0], %d0;";
    let by_parity = "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0;";
    // The phase before the first is over.
    let before = "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p2, [%r0], 1, 0x989680;
        mbarrier.arrive.shared.b64 _, [%r0];";
    for wait in [by_token, by_parity] {
        assert_eq!(passed(wait), [1; 32]);
    }
    // Everybody arrives in the first phase, passes; nobody arrives in the second.
    let again = format!("{by_parity} mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 1;");
    let waits = with_barrier(
        32,
        &format!("mbarrier.arrive.shared::cta.b64 _, [%r0]; {again}"),
    );
    let found = fault(&waits);
    let FaultKind::Deadlock { what } = &found else {
        panic!("{found}");
    };
    assert!(what.contains("phase 1: 0 of 32 arrivals"), "{what}");
    let two = with_barrier(32, before);
    let two = format!("{two} selp.u64 %out, 1, 0, %p2;");
    assert_eq!(run(&two, &[[0; 3]; 32]), [1; 32]);
    // Arrivals by number, and bytes by hand.
    let bytes = with_barrier(
        4,
        "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r0], 3;
        @%p1 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r0], 16;
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 16;
        @%p1 mbarrier.complete_tx.shared::cta.b64 [%r0], 32;
        mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0;
        selp.u64 %out, 1, 0, %p2;",
    );
    assert_eq!(run(&bytes, &[[0; 3]; 32]), [1; 32]);
}

#[test]
fn what_may_not_be_done_to_a_barrier() {
    let told = |n_arrivals: u32, body: &str| {
        let found = fault(&with_barrier(n_arrivals, body));
        match found {
            FaultKind::Mbarrier { what, .. } => what,
            other => panic!("{other}"),
        }
    };
    let arrive = "mbarrier.arrive.shared::cta.b64 _, [%r0];";
    let many = "mbarrier.arrive.shared::cta.b64 _, [%r0], 34;";
    assert!(told(33, many).contains("the 33 expected"));
    assert!(told(0, "").contains("for 0 arrivals"));
    assert!(told(1, "ld.shared.b32 %r1, [%r0];").contains("plain memory"));
    assert!(told(1, "st.shared.b32 [%r0+4], %r0;").contains("plain memory"));
    assert!(told(1, "mbarrier.arrive.shared::cta.b64 _, [%r0+8];").contains("none was"));
    let again = "@%p1 mbarrier.init.shared::cta.b64 [%r0], 1;";
    assert!(told(1, again).contains("without mbarrier.inval"));
    let inval = format!("@%p1 mbarrier.inval.shared::cta.b64 [%r0]; {arrive}");
    assert!(told(1, &inval).contains("none was"));
    // What is free again holds nothing, and may be a barrier once more.
    let read = "@%p1 mbarrier.inval.shared::cta.b64 [%r0]; ld.shared.b32 %r1, [%r0];";
    let found = fault(&with_barrier(1, read));
    assert!(matches!(found, FaultKind::Uninitialised { .. }), "{found}");
    let reused = format!("@%p1 mbarrier.inval.shared::cta.b64 [%r0]; {again}");
    run(&with_barrier(1, &reused), &[[0; 3]; 32]);
}

#[test]
fn other_forms_are_refused_by_name() {
    for (opcode, named) in [
        (
            "mbarrier.test_wait.shared::cta.b64 %p0, [%r0], %d0",
            "test_wait",
        ),
        ("mbarrier.init.b64 [%d0], 1", "generic"),
        (
            "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r0]",
            "relaxed",
        ),
        (
            "mbarrier.arrive.shared::cluster.b64 _, [%r0]",
            "shared::cluster",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%d0], [%r0], 16",
            "bulk_group",
        ),
        ("cp.async.bulk.commit_group", "commit_group"),
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%d0, {%r1, %r2}], [%r3]",
            "tensor maps",
        ),
    ] {
        let text = format!(
            ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k() {{
            .reg .pred %p<2>; .reg .b32 %r<4>; .reg .b64 %d<2>;\n{opcode};\nret;\n}}"
        );
        let error = Module::parse(&text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// Two warps: thread 0 copies `len` bytes to `tile` by `copy`, everybody waits, and thread `i`
/// gives word `i`.
fn copied(copy: &str, from: &[u32]) -> Result<Vec<u32>, Box<Fault>> {
    let text = format!(
        "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .pred %p<4>;
    .reg .b32 %r<8>, %lane;
    .reg .b64 %d<8>;
    .shared .align 128 .b8 tile[256];
    .shared .align 8 .b8 full[8];
    ld.param.u64 %d0, [in];
    ld.param.u64 %d1, [out];
    mov.u32 %lane, %tid.x;
    mov.u32 %r0, tile;
    mov.u32 %r1, full;
    setp.eq.u32 %p1, %lane, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1], 1;
    @%p1 fence.mbarrier_init.release.cluster;
    bar.sync 0;
    {copy}
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
    shl.b32 %r2, %lane, 2;
    add.u32 %r3, %r0, %r2;
    ld.shared.b32 %r4, [%r3];
    cvt.u64.u32 %d2, %r2;
    add.u64 %d1, %d1, %d2;
    st.global.b32 [%d1], %r4;
    ret;
}}
"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let (from, to) = (memory.upload(from), memory.alloc(256));
    let launch = Launch::new([1, 1, 1], [64, 1, 1]);
    let kernel = module.kernel("k").unwrap();
    let report = kernel.launch(&launch, &[Arg::from(from), Arg::from(to)], &memory)?;
    assert!(report.counters.bulk_copies > 0);
    Ok(memory.download::<u32>(to, 64).unwrap())
}

const COPY: &str = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";

#[test]
fn bulk_copies_count_at_their_barrier() {
    let values: Vec<u32> = (0..64).map(|i| i * i).collect();
    let halves = format!(
        "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 256;
        @%p1 {COPY} [%r0], [%d0], 128, [%r1];
        @%p1 {COPY} [%r0+128], [%d0+128], 128, [%r1];"
    );
    assert_eq!(copied(&halves, &values).unwrap(), values);
    // Announced afterwards: the phase cannot end before its arrival.
    let after = format!(
        "@%p1 {COPY} [%r0], [%d0], 256, [%r1];
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 256;"
    );
    assert_eq!(copied(&after, &values).unwrap(), values);
    // Out of bounds, misaligned, and left in flight.
    let found = copied(&after, &values[..60]).unwrap_err();
    assert!(
        matches!(found.kind, FaultKind::OutOfBounds { .. }),
        "{found}"
    );
    for wrong in [
        "[%r0], [%d0+8], 128",
        "[%r0+4], [%d0], 128",
        "[%r0], [%d0], 120",
    ] {
        let copy = format!("@%p1 {COPY} {wrong}, [%r1];");
        let found = copied(&copy, &values).unwrap_err();
        assert!(
            matches!(found.kind, FaultKind::Misaligned { .. }),
            "{found}"
        );
    }
    // Of three, two were announced: the third comes to a phase that nobody waits for.
    let more = format!("{halves} @%p1 {COPY} [%r0], [%d0], 16, [%r1];");
    let found = copied(&more, &values).unwrap_err();
    assert!(matches!(found.kind, FaultKind::InFlight { .. }), "{found}");
    let left = format!("@%p1 {COPY} [%r0], [%d0], 256, [%r1]; ret;");
    let found = copied(&left, &values).unwrap_err();
    let told = found.to_string();
    assert!(told.contains("nobody waited for a bulk copy"), "{told}");
}

#[test]
fn bulk_copies_need_a_fenced_barrier() {
    let values = [7; 64];
    let unfenced = format!(
        "@%p1 mbarrier.inval.shared::cta.b64 [%r1];
        @%p1 mbarrier.init.shared::cta.b64 [%r1], 1;
        @%p1 {COPY} [%r0], [%d0], 256, [%r1];"
    );
    let found = copied(&unfenced, &values).unwrap_err();
    assert!(
        matches!(found.kind, FaultKind::ProxyFence { .. }),
        "{found}"
    );
}

/// What a launch counts in which one warp waits and the other arrives; the second warp acts first.
fn counted(waits: &str) -> Counters {
    let text = format!(
        "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry k()
{{
    .reg .pred %p<4>;
    .reg .b32 %r<8>, %lane;
    .shared .align 8 .b8 full[8];
    mov.u32 %lane, %tid.x;
    mov.u32 %r1, full;
    setp.eq.u32 %p0, %lane, 0;
    @%p0 mbarrier.init.shared::cta.b64 [%r1], 32;
    bar.sync 0;
    setp.{waits}.u32 %p1, %lane, 32;
    @%p1 bra WAIT;
    mbarrier.arrive.shared::cta.b64 _, [%r1];
    bra END;
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
    add.u32 %r2, %lane, 1;
END:
    ret;
}}
"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let launch = Launch::new([1, 1, 1], [64, 1, 1]);
    let kernel = module.kernel("k").unwrap();
    let report = kernel.launch(&launch, &[], &Memory::new()).unwrap();
    report.counters
}

/// A wait that fails is tried again, and counts when it succeeds.
#[test]
fn waits_count_once() {
    assert_eq!(counted("ge"), counted("lt"));
}
