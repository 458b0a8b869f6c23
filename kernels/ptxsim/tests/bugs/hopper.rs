//! Seeded bugs in what only compute capability 9.0 has: barriers in shared memory, bulk copies
//! and products of warp groups.

use ptxsim::{FaultKind, Space};

use crate::{caught, device, threads, uninitialised};

/// A kernel of two warps is caught in this thread of its block.
fn copies(name: &str, thread: u32, expected: impl Fn(&FaultKind) -> bool) {
    let (memory, input, output) = device(128, 64);
    let args = [input, output];
    caught(name, &threads(64), &args, &memory, (0, thread), expected);
}

/// A kernel of one warp group is caught in this thread of its block.
fn products(name: &str, thread: u32, expected: impl Fn(&FaultKind) -> bool) {
    let (memory, input, output) = device(576, 256);
    let args = [input, output];
    caught(name, &threads(128), &args, &memory, (0, thread), expected);
}

fn in_flight(issuer: u32) -> impl Fn(&FaultKind) -> bool {
    move |kind| matches!(kind, FaultKind::InFlight { issuer: found, .. } if *found == issuer)
}

/// Of what this thread wrote.
fn unfenced(space: Space, writer: u32) -> impl Fn(&FaultKind) -> bool {
    move |kind| {
        matches!(kind, FaultKind::ProxyFence { space: found, writer: by, .. }
            if (*found, *by) == (space, writer))
    }
}

fn deadlock(parts: [&'static str; 2]) -> impl Fn(&FaultKind) -> bool {
    move |kind| {
        let told = kind.to_string();
        matches!(kind, FaultKind::Deadlock { .. }) && parts.iter().all(|part| told.contains(part))
    }
}

// Of warps that a barrier lets go on, the last to reach it is the first behind it.

#[test]
fn phases_of_barriers() {
    copies("bulk_no_expect", 0, in_flight(0));
    copies("bulk_wrong_phase", 32, uninitialised(Space::Shared));
    let of_bytes = "1 of 1 arrivals, 16 bytes announced did not come";
    let all_wait = "2 warps wait at mbarrier";
    copies("bulk_wrong_bytes", 0, deadlock([all_wait, of_bytes]));
    copies(
        "missing_arrival",
        0,
        deadlock([all_wait, "1 of 2 arrivals"]),
    );
}

#[test]
fn bytes_of_bulk_copies() {
    copies("bulk_read_unwaited", 0, in_flight(32));
    copies(
        "bulk_publishes_nothing",
        0,
        |kind| matches!(kind, FaultKind::Race { access: "read", other, .. } if other.contains("thread 32")),
    );
    copies(
        "bulk_overwritten",
        32,
        |kind| matches!(kind, FaultKind::Race { other, .. } if other.contains("a read by warp 0")),
    );
    copies("bulk_unfinished", 0, |kind| {
        kind.to_string().contains("nobody waited for a bulk copy")
    });
}

#[test]
fn fences_of_the_async_proxy() {
    copies("bulk_init_unfenced", 0, unfenced(Space::Shared, 0));
    copies("bulk_unfenced_source", 0, unfenced(Space::Global, 0));
    // Row 48 is the first that the last warp reads.
    for name in [
        "group_missing_fence",
        "group_fence_of_one_lane",
        "group_fence_of_global",
        "group_fence_of_barriers",
    ] {
        products(name, 96, unfenced(Space::Shared, 48));
    }
}

#[test]
fn registers_of_products() {
    let used = |kind: &FaultKind| *kind == FaultKind::RegisterInFlight;
    products("group_missing_wait", 96, used);
    products("group_sums_of_another", 96, used);
    products("group_registers", 96, |kind| {
        *kind == FaultKind::MissingFence
    });
}

#[test]
fn warps_of_a_group_agree() {
    let differs = |kind: &FaultKind, on: &str, told: &str| matches!(kind, FaultKind::GroupDiffers { text, what } if *text == on && what.contains(told));
    products("group_other_operand", 32, |kind| {
        differs(kind, "the matrix descriptors", "other warps")
    });
    products("group_other_instruction", 0, |kind| {
        differs(kind, "the instruction", "other warps are at line")
    });
}

#[test]
fn operands_of_products() {
    products(
        "group_descriptor",
        96,
        |kind| matches!(kind, FaultKind::Descriptor { what, .. } if what.contains("first row")),
    );
    let (memory, input, output) = device(576, 128);
    caught(
        "group_released_early",
        &threads(160),
        &[input, output],
        &memory,
        (0, 128),
        |kind| matches!(kind, FaultKind::Race { other, .. } if other.contains("a read by warp")),
    );
}
