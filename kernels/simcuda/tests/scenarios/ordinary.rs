//! Programs that do nothing wrong.

use cudarc::driver::{CudaSlice, PushKernelArg, result, sys};

use super::{code, device, file, numbers, shape};

const N: usize = 1000;

pub(super) fn launches() {
    let (context, kernel) = device(0);
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    let stream = context.new_stream().unwrap();
    let add = kernel("add");
    let (a, b) = (numbers(N, 1.0), numbers(N, 0.5));
    let (a_there, b_there) = (
        stream.clone_htod(&a).unwrap(),
        stream.clone_htod(&b).unwrap(),
    );
    let mut out = stream.alloc_zeros::<f32>(N).unwrap();
    let n = N as i32;
    for _ in 0..3 {
        let mut launch = stream.launch_builder(&add);
        launch.arg(&a_there).arg(&b_there).arg(&mut out).arg(&n);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(shape(N)) }.unwrap();
    }
    let found = stream.clone_dtoh(&out).unwrap();
    let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(found, expected);
    let (free, total) = context.mem_get_info().unwrap();
    assert_eq!(total - free, 3 * 4 * N);
    drop((a_there, b_there, out));
    let (free, total) = context.mem_get_info().unwrap();
    assert_eq!(total, free);
    let trace = std::fs::read_to_string(file("SIMCUDA_TRACE")).unwrap();
    assert_eq!(
        trace.lines().filter(|line| line.contains(" add ")).count(),
        3
    );
}

pub(super) fn devices() {
    let (first, _) = device(0);
    let (second, kernel) = device(1);
    assert_eq!(second.compute_capability().unwrap(), (8, 0));
    assert_eq!(cudarc::driver::CudaContext::device_count().unwrap(), 2);
    let (here, there) = (first.new_stream().unwrap(), second.new_stream().unwrap());
    let a = there.clone_htod(&numbers(N, 1.0)).unwrap();
    let mut out = there.alloc_zeros::<f32>(N).unwrap();
    let n = N as i32;
    let add = kernel("add");
    let mut launch = there.launch_builder(&add);
    launch.arg(&a).arg(&a).arg(&mut out).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(shape(N)) }.unwrap();
    there.synchronize().unwrap();
    let copy = here.clone_dtod(&out).unwrap();
    assert_eq!(here.clone_dtoh(&copy).unwrap(), numbers(N, 2.0));
}

/// A replay does what the launches did, with what memory holds then.
pub(super) fn graphs() {
    let (context, kernel) = device(0);
    let stream = context.new_stream().unwrap();
    let add = kernel("add");
    let mut sum = stream.alloc_zeros::<f32>(N).unwrap();
    let mut step = stream.clone_htod(&numbers(N, 1.0)).unwrap();
    let n = N as i32;
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).unwrap();
    let refused = code(stream.synchronize());
    assert_eq!(
        refused,
        sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    let flags = sys::CUgraphInstantiate_flags(0);
    assert!(stream.end_capture(flags).is_err());
    stream.begin_capture(mode).unwrap();
    let launch = |sum: &mut CudaSlice<f32>, step: &CudaSlice<f32>| {
        let before = sum.try_clone_view();
        let mut launch = stream.launch_builder(&add);
        launch.arg(&before).arg(step).arg(sum).arg(&n);
        // SAFETY: the arguments are the kernel's; each element is read and written by one thread.
        unsafe { launch.launch(shape(N)) }.unwrap();
    };
    launch(&mut sum, &step);
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), vec![0.0; N]);
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), numbers(N, 2.0));
    stream.memcpy_htod(&numbers(N, 10.0), &mut step).unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), numbers(N, 12.0));
}

/// The address of a slice as an argument, while the slice itself is another one.
trait View {
    fn try_clone_view(&self) -> u64;
}

impl View for CudaSlice<f32> {
    fn try_clone_view(&self) -> u64 {
        use cudarc::driver::DevicePtr;
        let (address, _guard) = self.device_ptr(self.stream());
        address
    }
}

/// Work on a second stream, forked and joined by events, is part of the graph.
pub(super) fn forked_graphs() {
    let (context, kernel) = device(0);
    let (main, side) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let add = kernel("add");
    let a = main.clone_htod(&numbers(N, 1.0)).unwrap();
    let mut double = main.alloc_zeros::<f32>(N).unwrap();
    let mut triple = main.alloc_zeros::<f32>(N).unwrap();
    main.synchronize().unwrap();
    let n = N as i32;
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    main.begin_capture(mode).unwrap();
    let fork = main.record_event(None).unwrap();
    side.wait(&fork).unwrap();
    let mut launch = side.launch_builder(&add);
    launch.arg(&a).arg(&a).arg(&mut double).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(shape(N)) }.unwrap();
    main.wait(&side.record_event(None).unwrap()).unwrap();
    let mut launch = main.launch_builder(&add);
    launch.arg(&a).arg(&double).arg(&mut triple).arg(&n);
    // SAFETY: as above.
    unsafe { launch.launch(shape(N)) }.unwrap();
    let graph = main
        .end_capture(sys::CUgraphInstantiate_flags(0))
        .unwrap()
        .unwrap();
    graph.launch().unwrap();
    assert_eq!(main.clone_dtoh(&triple).unwrap(), numbers(N, 3.0));
}

/// Copies of pinned memory happen when the stream is waited for and not before.
pub(super) fn late_copies() {
    let (context, _) = device(0);
    let stream = context.new_stream().unwrap();
    let there = stream.clone_htod(&[7u8; 64]).unwrap();
    let from = there_address(&there);
    // SAFETY: the pinned memory is as long as the copies, and freed last.
    unsafe {
        let pinned = result::malloc_host(64, 0).unwrap().cast::<u8>();
        let host = std::slice::from_raw_parts_mut(pinned, 64);
        result::memcpy_dtoh_async(host, from, stream.cu_stream()).unwrap();
        assert_eq!(*pinned, 0xFF, "read before the stream was waited for");
        stream.synchronize().unwrap();
        assert_eq!(*pinned, 7);
        // A staging buffer that is changed too early sends what it was changed to.
        result::memcpy_htod_async(
            from,
            std::slice::from_raw_parts(pinned, 64),
            stream.cu_stream(),
        )
        .unwrap();
        pinned.write_bytes(9, 64);
        assert_eq!(stream.clone_dtoh(&there).unwrap(), [9; 64]);
        // Pageable memory is read at once.
        let mut pageable = [1u8; 64];
        result::memcpy_htod_async(from, &pageable, stream.cu_stream()).unwrap();
        pageable.fill(2);
        assert_eq!(stream.clone_dtoh(&there).unwrap(), [1; 64]);
        assert_eq!(pageable[0], 2);
        result::free_host(pinned.cast()).unwrap();
    }
}

fn there_address(slice: &CudaSlice<u8>) -> u64 {
    use cudarc::driver::DevicePtr;
    let (address, _guard) = slice.device_ptr(slice.stream());
    address
}

pub(super) fn events() {
    let (context, kernel) = device(0);
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let add = kernel("add");
    let a = first.clone_htod(&numbers(N, 1.0)).unwrap();
    let mut out = first.alloc_zeros::<f32>(N).unwrap();
    std::fs::write(file("SIMCUDA_CONTROL"), "slow_launch kernel=add ms=20").unwrap();
    let timing = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let begin = first.record_event(timing).unwrap();
    let n = N as i32;
    let mut launch = first.launch_builder(&add);
    launch.arg(&a).arg(&a).arg(&mut out).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(shape(N)) }.unwrap();
    let end = first.record_event(timing).unwrap();
    assert!(!end.is_complete());
    // The other stream waits for the first one, though nobody synchronises with that.
    second.wait(&end).unwrap();
    assert_eq!(second.clone_dtoh(&out).unwrap(), numbers(N, 2.0));
    assert!(end.is_complete());
    assert!(begin.elapsed_ms(&end).unwrap() >= 20.0);
}

/// More than 48 KiB must be asked for, and the card has its own limit.
pub(super) fn shared_memory_limits() {
    let (context, kernel) = device(0);
    let stream = context.new_stream().unwrap();
    let wide = kernel("wide");
    let launch = |shared_kib: u32| {
        let config = cudarc::driver::LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (1, 1, 1),
            shared_mem_bytes: shared_kib << 10,
        };
        // SAFETY: the kernel has no arguments.
        code(
            unsafe { stream.launch_builder(&wide).launch(config) }
                .and_then(|_| stream.synchronize()),
        )
    };
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_eq!(launch(48), sys::CUresult::CUDA_SUCCESS);
    assert_eq!(launch(49), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(wide.set_attribute(attribute, 100 << 10).is_err());
    wide.set_attribute(attribute, 99 << 10).unwrap();
    assert_eq!(launch(99), sys::CUresult::CUDA_SUCCESS);
    assert_eq!(
        wide.occupancy_max_active_blocks_per_multiprocessor(1024, 0, None)
            .unwrap(),
        1
    );
}
