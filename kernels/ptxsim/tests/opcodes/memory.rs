//! Loads, stores, atomics and asynchronous copies, and the faults of all of them.

use ptxsim::{Arg, FaultKind, Launch, Memory, Module, Space};

use crate::harness::{run, try_run};

#[test]
fn widths_and_signs() {
    let out = run(
        "
        mov.u32 %r0, tile; shl.b32 %r1, %lane, 3; add.u32 %r0, %r0, %r1;
        st.shared.b64 [%r0], %a;
        ld.shared.s8 %r2, [%r0+1];
        ld.shared.u16 %r3, [%r0+2];
        mov.b64 %out, {%r2, %r3};",
        &[[0x8765_4321_0FED_9ABC, 0, 0]; 32],
    );
    assert_eq!(out, [0x0FED_FFFF_FF9A; 32]);
}

#[test]
fn generic_addresses_and_local_memory() {
    let out = run(
        "
        .local .align 8 .b8 frame[16];
        mov.u64 %d0, frame; cvta.local.u64 %d0, %d0;
        mov.u64 %d1, tile; cvta.shared.u64 %d1, %d1;
        mul.wide.u32 %d2, %lane, 8; add.u64 %d1, %d1, %d2;
        st.u64 [%d0+8], %a;
        ld.u64 %d3, [%d0+8];
        st.u64 [%d1], %d3;
        isspacep.shared %p1, %d1; isspacep.shared %p2, %d0;
        ld.u64 %out, [%d1];
        @!%p1 mov.u64 %out, 1;
        @%p2 mov.u64 %out, 2;",
        &[[77, 0, 0]; 32],
    );
    assert_eq!(out, [77; 32]);
}

#[test]
fn constants_of_the_module() {
    let text = "
.version 7.8
.target sm_80
.address_size 64
.const .align 4 .b32 table[4] = {10, 20, 0x1E, -1};
.global .align 1 .b8 bytes[3] = {7, 8};
.visible .entry k(.param .u64 .ptr .global .align 8 out, .param .align 4 .b8 pair[8])
.maxntid 4, 1, 1
{
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [out];
    ld.param.v2.u32 {%r5, %r6}, [pair];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    mov.u64 %rd3, table;
    add.s64 %rd4, %rd3, %rd2;
    ld.const.u32 %r2, [%rd4];
    ld.const.u32 %r3, [table+4];
    mov.u64 %rd5, bytes;
    ld.global.nc.u8 %r4, [%rd5+1];
    add.u32 %r2, %r2, %r3;
    add.u32 %r2, %r2, %r4;
    add.u32 %r2, %r2, %r6;
    add.s64 %rd1, %rd1, %rd2;
    st.global.u32 [%rd1], %r2;
    ret;
}";
    let module = Module::parse(text).unwrap();
    assert_eq!(module.target(), "sm_80");
    let kernel = module.kernel("k").unwrap();
    assert_eq!(kernel.param_bytes().collect::<Vec<_>>(), [8, 8]);
    let mut memory = Memory::new();
    let out = memory.alloc(16);
    let pair = [5u32, 1000]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect::<Vec<u8>>();
    let args = [Arg::from(out), pair.into()];
    let launch = |n| Launch::new([1, 1, 1], [n, 1, 1]);
    kernel.launch(&launch(4), &args, &memory).unwrap();
    let expected = [10, 20, 30, u32::MAX].map(|value: u32| value.wrapping_add(1028));
    assert_eq!(memory.download::<u32>(out, 4).unwrap(), expected);
    let fault = kernel.launch(&launch(5), &args, &memory).unwrap_err();
    assert!(fault.to_string().contains("4 threads may be"), "{fault}");
    assert!(kernel.launch(&launch(4), &args[..1], &memory).is_err());
}

#[test]
fn atomics() {
    let out = run(
        "
        mov.u32 %r0, tile; setp.eq.u32 %p1, %lane, 0;
        @%p1 st.shared.u32 [%r0], 100;
        @%p1 st.shared.u32 [%r0+4], 0f3F800000;
        bar.sync 0;
        atom.shared.add.u32 %r1, [%r0], %lane;
        red.shared.add.f32 [%r0+4], 0f3F000000;
        atom.shared.cas.b32 %r2, [%r0], 596, 7;
        bar.sync 0;
        ld.shared.u32 %r3, [%r0];
        ld.shared.u32 %r4, [%r0+4];
        add.u32 %r3, %r3, %r1;
        mov.b64 %out, {%r3, %r4};",
        &[[0; 3]; 32],
    );
    for (lane, value) in out.into_iter().enumerate() {
        // 100 + 0 + 1 + ... + 31 = 596, which the first lane swaps for 7.
        let before = 100 + (0..lane as u64).sum::<u64>();
        assert_eq!(value, (u64::from(17f32.to_bits()) << 32) | (7 + before));
    }
}

#[test]
fn copies_happen_when_waited_for() {
    let copy = |before_load: &str| {
        format!(
            "
            mov.u32 %r0, tile; shl.b32 %r1, %lane, 4; add.u32 %r0, %r0, %r1;
            cp.async.ca.shared.global [%r0], [%in], 8, 8;
            cp.async.commit_group;
            cp.async.ca.shared.global [%r0+8], [%in+8], 8, 4;
            cp.async.commit_group;
            {before_load}"
        )
    };
    let input = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888, 0];
    let out = run(
        &copy("cp.async.wait_group 1; ld.shared.u64 %out, [%r0];"),
        &[input; 32],
    );
    assert_eq!(out, [input[0]; 32]);
    // Only four bytes are read, the others are zeros.
    let out = run(
        &copy("cp.async.wait_all; ld.shared.u64 %out, [%r0+8];"),
        &[input; 32],
    );
    assert_eq!(out, [0x7777_8888; 32]);
    let fault = try_run(
        &copy("cp.async.wait_group 1; ld.shared.u64 %out, [%r0+8];"),
        &[input; 32],
    );
    let fault = fault.unwrap_err();
    assert_eq!(
        fault.kind,
        FaultKind::InFlight {
            address: 8,
            issuer: 0
        }
    );
}

fn fault(body: &str) -> (FaultKind, u32) {
    let fault = try_run(body, &[[7, 0, 0]; 32]).expect_err(body);
    (fault.kind, fault.thread.unwrap())
}

#[test]
fn accesses_that_must_not_be() {
    let address = "mov.u32 %r0, tile; shl.b32 %r1, %lane, 2; add.u32 %r0, %r0, %r1;";
    let (kind, thread) = fault(&format!("{address} ld.shared.u32 %r2, [%r0];"));
    let space = Space::Shared;
    assert_eq!(
        (kind, thread),
        (
            FaultKind::Uninitialised {
                space,
                address: 0,
                len: 4
            },
            0
        )
    );
    let (kind, thread) = fault(&format!("{address} st.shared.u32 [%r0+904], 0;"));
    assert!(
        matches!(
            kind,
            FaultKind::OutOfBounds {
                space: Space::Shared,
                address: 1024,
                ..
            }
        ),
        "{kind}"
    );
    assert_eq!(thread, 30);
    let (kind, thread) = fault(&format!("{address} st.shared.u64 [%r0], 0;"));
    assert_eq!(
        (kind, thread),
        (
            FaultKind::Misaligned {
                space,
                address: 4,
                len: 8
            },
            1
        )
    );
}

#[test]
fn global_accesses_that_must_not_be() {
    let (kind, thread) = fault("ld.global.u64 %out, [%in+24];");
    assert!(
        matches!(
            kind,
            FaultKind::OutOfBounds {
                space: Space::Global,
                ..
            }
        ),
        "{kind}"
    );
    assert_eq!(thread, 31);
    let (kind, _) = fault("ld.global.u64 %out, [%to];");
    assert!(
        matches!(
            kind,
            FaultKind::Uninitialised {
                space: Space::Global,
                ..
            }
        ),
        "{kind}"
    );
    let (kind, _) = fault("mov.u64 %d0, 0; st.u32 [%d0], 1;");
    assert!(
        matches!(
            kind,
            FaultKind::OutOfBounds {
                space: Space::Global,
                ..
            }
        ),
        "{kind}"
    );
}

/// Two warps that write, wait or not, and read each other's words.
fn exchange(sync: &str) -> Result<ptxsim::Report, Box<ptxsim::Fault>> {
    let text = format!(
        "
.version 8.0
.target sm_80
.address_size 64
.visible .entry k()
{{
    .reg .b32 %r<8>;
    .shared .align 4 .b8 words[256];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    mov.u32 %r3, words;
    add.u32 %r4, %r3, %r2;
    st.shared.u32 [%r4], %r1;
    {sync}
    xor.b32 %r2, %r2, 128;
    add.u32 %r4, %r3, %r2;
    ld.shared.u32 %r5, [%r4];
    bar.sync 0;
    st.shared.u32 [%r4], %r5;
    ret;
}}"
    );
    let module = Module::parse(&text).unwrap();
    let launch = Launch::new([3, 1, 1], [64, 1, 1]);
    module
        .kernel("k")
        .unwrap()
        .launch(&launch, &[], &Memory::new())
}

#[test]
fn barriers_order_warps() {
    assert_eq!(
        exchange("bar.sync 0;").unwrap().counters.barriers,
        3 * 2 * 2
    );
    assert!(exchange("bar.sync 3, 64;").is_ok());
    let fault = exchange("").unwrap_err();
    assert!(
        matches!(fault.kind, FaultKind::Uninitialised { .. }),
        "{fault}"
    );
    // Every warp has met a barrier, but not the other warp.
    let fault = exchange("bar.sync 1, 32;").unwrap_err();
    assert!(
        matches!(
            fault.kind,
            FaultKind::Uninitialised { .. } | FaultKind::Race { .. }
        ),
        "{fault}"
    );
    let fault = exchange("bar.arrive 2, 64;").unwrap_err();
    assert!(
        matches!(
            fault.kind,
            FaultKind::Uninitialised { .. } | FaultKind::Race { .. }
        ),
        "{fault}"
    );
}

#[test]
fn refusals_name_what_is_unknown() {
    let parse = |line: &str| {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %r<4>;\n{line}\nret;\n}}"
        );
        Module::parse(&text).unwrap_err().to_string()
    };
    assert!(parse("frobnicate.u32 %r1;").contains("line 7: `frobnicate.u32`"));
    assert!(parse("add.sideways.u32 %r1, %r1, %r1;").contains(".sideways"));
    assert!(parse("add.u32 %r1, %r9, %r1;").contains("`%r9` is not known"));
    assert!(parse("add.u64 %r1, %r2, %r3;").contains("register"));
    assert!(parse("bra nowhere;").contains("nowhere"));
    assert!(parse("call f;").contains("inline"));
    let old = Module::parse(".version 6.4\n").unwrap_err().to_string();
    assert!(old.contains("6.4"), "{old}");
}
