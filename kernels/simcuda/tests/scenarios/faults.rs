//! Programs that go wrong, by their own fault or by injection.

use cudarc::driver::{PushKernelArg, sys};
use cudarc::nvrtc::Ptx;

use super::{TEXT, code, device, file, numbers, shape};

const N: usize = 100;

pub(super) fn out_of_memory() {
    let (context, _) = device(0);
    let stream = context.new_stream().unwrap();
    let most = stream.alloc_zeros::<u8>(3 << 20).unwrap();
    let refused = sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    assert_eq!(code(stream.alloc_zeros::<u8>(2 << 20)), refused);
    drop(most);
    // What was freed is there again, though nobody waited for the stream.
    let again = stream.alloc_zeros::<u8>(4 << 20).unwrap();
    drop(again);
    std::fs::write(file("SIMCUDA_CONTROL"), "fail_alloc above_bytes=1000").unwrap();
    assert_eq!(code(stream.alloc_zeros::<u8>(1001)), refused);
    assert!(stream.alloc_zeros::<u8>(1000).is_ok());
    std::fs::write(file("SIMCUDA_CONTROL"), "# nothing more\n\n").unwrap();
    assert!(stream.alloc_zeros::<u8>(2000).is_ok());
}

/// Runs `add` over `n` elements of arrays that have `N`, the output not set before.
fn run(n: i32, set: bool) -> sys::CUresult {
    let (context, kernel) = device(0);
    let stream = context.new_stream().unwrap();
    let add = kernel("add");
    let a = stream.clone_htod(&numbers(N, 1.0)).unwrap();
    // SAFETY: not read before it is written, but for the scenario that wants just that.
    let unset = unsafe { stream.alloc::<f32>(N) }.unwrap();
    let mut out = stream.alloc_zeros::<f32>(N).unwrap();
    let mut launch = stream.launch_builder(&add);
    launch
        .arg(&a)
        .arg(if set { &a } else { &unset })
        .arg(&mut out)
        .arg(&n);
    // SAFETY: what is wrong with the arguments is what the scenario is about.
    unsafe { launch.launch(shape(n as usize)) }.unwrap();
    let found = code(stream.synchronize());
    if found != sys::CUresult::CUDA_SUCCESS {
        // Nothing works in a lost context.
        assert_eq!(code(stream.alloc_zeros::<u8>(1)), found);
        assert_eq!(code(stream.synchronize()), found);
    }
    found
}

fn reported(parts: &[&str]) {
    let report = std::fs::read_to_string(file("SIMCUDA_REPORT")).unwrap();
    for part in parts {
        assert!(report.contains(part), "no `{part}` in: {report}");
    }
}

pub(super) fn out_of_bounds() {
    assert_eq!(
        run(N as i32 + 1, true),
        sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
    );
    reported(&[
        "add: global access of 4 bytes",
        "ends 4 bytes past an allocation of 400 bytes",
        "thread 100",
    ]);
}

pub(super) fn uninitialised() {
    assert_eq!(
        run(N as i32, false),
        sys::CUresult::CUDA_ERROR_LAUNCH_FAILED
    );
    reported(&["add: uninitialised global read", "thread 0"]);
}

pub(super) fn lenient() {
    assert_eq!(run(N as i32, false), sys::CUresult::CUDA_SUCCESS);
}

pub(super) fn injected() {
    let (context, kernel) = device(0);
    let stream = context.new_stream().unwrap();
    let add = kernel("add");
    let a = stream.clone_htod(&numbers(N, 1.0)).unwrap();
    let mut out = stream.alloc_zeros::<f32>(N).unwrap();
    let n = N as i32;
    let mut launch = || {
        let mut launch = stream.launch_builder(&add);
        launch.arg(&a).arg(&a).arg(&mut out).arg(&n);
        // SAFETY: the arguments are the kernel's.
        let given = unsafe { launch.launch(shape(N)) };
        let given = code(given);
        (given, code(stream.synchronize()))
    };
    let (fine, refused) = (
        sys::CUresult::CUDA_SUCCESS,
        sys::CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    );
    std::fs::write(
        file("SIMCUDA_CONTROL"),
        "fail_launch kernel=add nth=2 error=701",
    )
    .unwrap();
    assert_eq!(launch(), (fine, fine));
    assert_eq!(launch(), (refused, fine));
    assert_eq!(launch(), (fine, fine));
    // A failure while it runs ends the context.
    let late =
        "fail_launch kernel=other nth=1 error=700\nfail_launch kernel=* nth=1 error=719 late=1";
    std::fs::write(file("SIMCUDA_CONTROL"), late).unwrap();
    let lost = sys::CUresult::CUDA_ERROR_LAUNCH_FAILED;
    assert_eq!(launch(), (fine, lost));
    assert_eq!(launch(), (lost, lost));
    reported(&["add: injected error 719"]);
}

pub(super) fn images() {
    let (context, _) = device(0);
    let load = |text: String| code(context.load_module(Ptx::from_src(text)));
    let newer = sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU;
    assert_eq!(load(TEXT.replace("sm_80", "sm_89")), newer);
    assert_eq!(load(TEXT.replace("sm_80", "sm_90a")), newer);
    assert_eq!(
        load(TEXT.replace("sm_80", "sm_75")),
        sys::CUresult::CUDA_SUCCESS
    );
    let broken = sys::CUresult::CUDA_ERROR_INVALID_PTX;
    assert_eq!(load(TEXT.replace("add.f32", "frobnicate.f32")), broken);
    reported(&["`frobnicate.f32`"]);
    let module = context.load_module(Ptx::from_src(TEXT)).unwrap();
    let missing = sys::CUresult::CUDA_ERROR_NOT_FOUND;
    assert_eq!(code(module.load_function("nothing")), missing);
}
