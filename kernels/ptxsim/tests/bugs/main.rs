//! Kernels with one bug each, seeded on purpose: every one must be found, and named by kernel,
//! source line and thread. The line is the one that the source marks with `// BUG`.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod hopper;

use std::fs;
use std::path::{Path, PathBuf};

use ptxsim::{Arg, Fault, FaultKind, Launch, Memory, Module, Options, Report, Space};

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bugs")
        .join(file)
}

/// Runs the kernel of that name with these arguments.
fn launch(
    name: &str,
    launch: &Launch,
    args: &[Arg],
    memory: &Memory,
) -> Result<Report, Box<Fault>> {
    let text = fs::read_to_string(here(&format!("{name}.ptx"))).unwrap();
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    module.kernel(name).unwrap().launch(launch, args, memory)
}

/// The launch must fail, at the marked line, in that block and thread.
fn caught(
    name: &str,
    shape: &Launch,
    args: &[Arg],
    memory: &Memory,
    place: (u32, u32),
    expected: impl Fn(&FaultKind) -> bool,
) {
    let source = fs::read_to_string(here(&format!("{name}.cu"))).unwrap();
    let marked = source
        .lines()
        .position(|line| line.contains("// BUG"))
        .unwrap() as u32
        + 1;
    let fault = match launch(name, shape, args, memory) {
        Ok(report) => panic!("{name}: not caught: {report:?}"),
        Err(fault) => fault,
    };
    assert!(expected(&fault.kind), "{name}: {fault}");
    assert_eq!(fault.kernel, name);
    assert_eq!(
        fault.source_line,
        Some((format!("{name}.cu"), marked)),
        "{fault}"
    );
    assert_eq!(
        (fault.block[0], fault.thread),
        (place.0, Some(place.1)),
        "{fault}"
    );
    let told = fault.to_string();
    for part in [
        name,
        &format!("{name}.cu:{marked}"),
        &format!("thread {}", place.1),
    ] {
        assert!(told.contains(part), "{told}");
    }
}

fn threads(n: u32) -> Launch {
    Launch::new([1, 1, 1], [n, 1, 1])
}

/// A device with inputs `0.0, 1.0, ...` and room for outputs: their addresses.
fn device(n_in: usize, n_out: usize) -> (Memory, Arg, Arg) {
    let mut memory = Memory::new();
    let values: Vec<f32> = (0..n_in).map(|value| value as f32).collect();
    let input = Arg::from(memory.upload(&values));
    let output = Arg::from(memory.alloc(4 * n_out));
    (memory, input, output)
}

fn uninitialised(space: Space) -> impl Fn(&FaultKind) -> bool {
    move |kind| matches!(kind, FaultKind::Uninitialised { space: found, .. } if *found == space)
}

fn out_of_bounds(space: Space) -> impl Fn(&FaultKind) -> bool {
    move |kind| matches!(kind, FaultKind::OutOfBounds { space: found, .. } if *found == space)
}

#[test]
fn missing_barrier() {
    let (memory, input, output) = device(128, 128);
    let place = (0, 0);
    caught(
        "missing_barrier",
        &threads(128),
        &[input, output],
        &memory,
        place,
        uninitialised(Space::Shared),
    );
}

#[test]
fn race_between_warps() {
    let (memory, input, output) = device(64, 128);
    let args = [input, output, Arg::from(3)];
    caught(
        "race_between_warps",
        &threads(128),
        &args,
        &memory,
        (0, 0),
        |kind| matches!(kind, FaultKind::Race { access: "read", other, .. } if other.contains("write by thread 96")),
    );
    // A single round has nothing to race with.
    assert!(
        launch(
            "race_between_warps",
            &threads(128),
            &[args[0].clone(), args[1].clone(), Arg::from(1)],
            &memory
        )
        .is_ok()
    );
}

#[test]
fn atomics_race_with_reads() {
    let (memory, _, output) = device(0, 64);
    // The last warp at the barrier goes on first; the other counts after it has read.
    caught(
        "atomic_unsynced",
        &threads(64),
        &[output],
        &memory,
        (0, 0),
        |kind| matches!(kind, FaultKind::Race { access: "write", other, .. } if other.contains("a read by warp 1")),
    );
}

#[test]
fn off_by_one_in_shared_memory() {
    let (memory, input, output) = device(64, 64);
    let args = [input, output];
    caught(
        "shared_off_by_one",
        &threads(64),
        &args,
        &memory,
        (0, 63),
        |kind| matches!(kind, FaultKind::OutOfBounds { space: Space::Shared, near, .. } if near.contains("which has 256 bytes")),
    );
    let short = threads(64).with_shared(63 * 4);
    caught(
        "dynamic_off_by_one",
        &short,
        &args,
        &memory,
        (0, 63),
        out_of_bounds(Space::Shared),
    );
    assert!(
        launch(
            "dynamic_off_by_one",
            &threads(64).with_shared(64 * 4),
            &args,
            &memory
        )
        .is_ok()
    );
}

#[test]
fn off_by_one_in_global_memory() {
    let (memory, input, output) = device(100, 100);
    let shape = Launch::new([2, 1, 1], [64, 1, 1]);
    let args = [input, output.clone(), Arg::from(100)];
    // Element 100 belongs to block 1, thread 36.
    caught(
        "global_off_by_one",
        &shape,
        &args,
        &memory,
        (1, 36),
        out_of_bounds(Space::Global),
    );
    assert!(
        launch(
            "global_off_by_one",
            &shape,
            &[args[0].clone(), args[1].clone(), Arg::from(99)],
            &memory
        )
        .is_ok()
    );
    let shape = Launch::new([2, 1, 1], [50, 1, 1]);
    caught(
        "global_write_off_by_one",
        &shape,
        &[output],
        &memory,
        (1, 49),
        out_of_bounds(Space::Global),
    );
}

#[test]
fn asynchronous_copies() {
    let (memory, input, output) = device(4 * 64 * 4, 4 * 64);
    let in_flight = |kind: &FaultKind| matches!(kind, FaultKind::InFlight { .. });
    let args = [input.clone(), output.clone()];
    caught(
        "missing_wait",
        &threads(64),
        &args,
        &memory,
        (0, 32),
        in_flight,
    );
    let args = [input, output, Arg::from(4)];
    caught(
        "wait_too_few",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        in_flight,
    );
    caught(
        "overwritten_stage",
        &threads(64),
        &args,
        &memory,
        (0, 0),
        |kind| {
            matches!(
                kind,
                FaultKind::Race { access: "read", other, .. } if other.contains("thread 63")
            )
        },
    );
}

#[test]
fn shuffles() {
    let (memory, input, output) = device(32, 32);
    let args = [input, output, Arg::from(16)];
    caught(
        "shuffle_mask",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        |kind| {
            *kind
                == FaultKind::MemberMask {
                    mask: u32::MAX,
                    active: 0xFFFF,
                }
        },
    );
    caught(
        "syncwarp_mask",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        |kind| {
            *kind
                == FaultKind::MemberMask {
                    mask: u32::MAX,
                    active: 0xFFFF,
                }
        },
    );
    caught(
        "shuffle_source",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        |kind| *kind == FaultKind::ShuffleSource { source_lane: 20 },
    );
}

#[test]
fn misaligned_vector() {
    let (memory, input, output) = device(256, 32);
    caught(
        "misaligned_vector",
        &threads(32),
        &[input, output],
        &memory,
        (0, 1),
        |kind| {
            matches!(
                kind,
                FaultKind::Misaligned {
                    space: Space::Global,
                    len: 16,
                    ..
                }
            )
        },
    );
}

#[test]
fn uninitialised_reads() {
    let (memory, input, output) = device(32, 32);
    let args = [input.clone(), output.clone()];
    caught(
        "uninitialised_global",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        uninitialised(Space::Global),
    );
    let args = [input, output, Arg::from(30)];
    caught(
        "uninitialised_tail",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        uninitialised(Space::Shared),
    );
    let (mut memory, _, output) = device(0, 32);
    let args = [
        Arg::from(memory.upload(&[0, 1, 2, 3])),
        output,
        Arg::from(3),
    ];
    caught(
        "local_uninitialised",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        uninitialised(Space::Local),
    );
}

#[test]
fn barriers() {
    let (memory, _, output) = device(0, 128);
    let args = [output.clone(), Arg::from(16)];
    caught(
        "divergent_barrier",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        |kind| {
            *kind
                == FaultKind::DivergentBarrier {
                    active: 0xFFFF,
                    expected: u32::MAX,
                }
        },
    );
    let args = [output.clone(), Arg::from(2)];
    caught(
        "deadlock",
        &threads(128),
        &args,
        &memory,
        (0, 0),
        |kind| matches!(kind, FaultKind::Deadlock { what } if what.contains("64 of 128 threads arrived")),
    );
    let args = [output, Arg::from(3)];
    caught(
        "barrier_count",
        &threads(128),
        &args,
        &memory,
        (0, 32),
        |kind| matches!(kind, FaultKind::Barrier { barrier: 1, .. }),
    );
}

#[test]
fn matrix_instructions() {
    let mut memory = Memory::new();
    let input = memory.upload(&[0u32; 256]);
    let output = Arg::from(memory.alloc(128));
    let args = [Arg::from(input), output.clone(), Arg::from(31)];
    caught(
        "inactive_lane",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        |kind| {
            *kind
                == FaultKind::InactiveLanes {
                    what: "mma",
                    active: 0x7FFF_FFFF,
                }
        },
    );
    caught(
        "tile_pitch",
        &threads(32),
        &[Arg::from(input), output],
        &memory,
        (0, 1),
        |kind| {
            matches!(
                kind,
                FaultKind::Misaligned {
                    space: Space::Shared,
                    len: 16,
                    ..
                }
            )
        },
    );
}

#[test]
fn numbers_and_indices() {
    let mut memory = Memory::new();
    let heads: Vec<i32> = (0..32)
        .map(|lane| if lane == 21 { 64 } else { 4 })
        .collect();
    let (heads, output) = (memory.upload(&heads), Arg::from(memory.alloc(128)));
    let args = [Arg::from(heads), output.clone(), Arg::from(32)];
    caught(
        "division_by_zero",
        &threads(32),
        &args,
        &memory,
        (0, 21),
        |kind| *kind == FaultKind::DivisionByZero,
    );
    let indices: Vec<i32> = (0..9).collect();
    let indices = memory.upload(&indices);
    let args = [Arg::from(indices), output.clone(), Arg::from(9)];
    caught(
        "local_index",
        &threads(32),
        &args,
        &memory,
        (0, 0),
        out_of_bounds(Space::Local),
    );
    let options = Options {
        max_instructions: 100_000,
        ..Options::default()
    };
    let flag = memory.upload(&[0]);
    let args = [Arg::from(flag), output];
    caught(
        "endless",
        &threads(32).with_options(options),
        &args,
        &memory,
        (0, 0),
        |kind| matches!(kind, FaultKind::Runaway { .. }),
    );
}

/// Each bug has its source and its PTX, and a test.
#[test]
fn every_bug_is_tested() {
    let own = ["main.rs", "hopper.rs"].map(|file| fs::read_to_string(here(file)).unwrap());
    let own = own.concat();
    let mut n = 0;
    for entry in fs::read_dir(here("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "cu") {
            assert!(path.with_extension("ptx").exists(), "{name}");
            assert!(own.contains(&format!("\"{name}\"")), "{name}");
            n += 1;
        }
    }
    assert!(n >= 44, "{n}");
}
