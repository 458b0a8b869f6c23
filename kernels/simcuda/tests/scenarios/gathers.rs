//! Two devices that gather values through the library's other name.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaStream, DevicePtr, DevicePtrMut};
use libloading::{Library, Symbol};

const N: usize = 5;
const FLOAT32: c_int = 7;

type InitAll = unsafe extern "C" fn(*mut usize, c_int, *const c_int) -> c_int;
type AllGather = unsafe extern "C" fn(u64, u64, usize, c_int, usize, *mut c_void) -> c_int;
type Abort = unsafe extern "C" fn(usize) -> c_int;

/// A stream of each device, and its place.
fn two(library: &Library) -> [(Arc<CudaStream>, usize); 2] {
    let streams = [0, 1].map(|ordinal| {
        let context = CudaContext::new(ordinal).unwrap();
        context.new_stream().unwrap()
    });
    let mut comms = [0; 2];
    // SAFETY: the function has this type, and there is room for two places.
    let code = unsafe {
        let init: Symbol<'_, InitAll> = library.get("ncclCommInitAll").unwrap();
        init(comms.as_mut_ptr(), 2, [0, 1].as_ptr())
    };
    assert_eq!(code, 0);
    let [first, second] = streams;
    [(first, comms[0]), (second, comms[1])]
}

fn library() -> Library {
    // SAFETY: the stand-in, which is loaded already under its first name.
    unsafe { Library::new("libnccl.so.2") }.unwrap()
}

/// What a device has after a gather of `mine`, or nothing if it cannot be waited for.
fn gather(library: &Library, (stream, comm): &(Arc<CudaStream>, usize), mine: f32) -> Vec<f32> {
    let from = stream.clone_htod(&[mine; N]).unwrap();
    let mut to = stream.alloc_zeros::<f32>(2 * N).unwrap();
    {
        let ((from, _a), (to, _b)) = (from.device_ptr(stream), to.device_ptr_mut(stream));
        // SAFETY: the function has this type, and the buffers live until the stream is done.
        let code = unsafe {
            let gather: Symbol<'_, AllGather> = library.get("ncclAllGather").unwrap();
            gather(from, to, N, FLOAT32, *comm, stream.cu_stream().cast())
        };
        assert_eq!(code, 0);
    }
    stream.synchronize().unwrap();
    stream.clone_dtoh(&to).unwrap()
}

/// Each waits for the other, and both have the values in the order of the ranks.
pub(super) fn meets() {
    let library = library();
    let two = two(&library);
    let expected = [[1.0; N], [2.0; N]].concat();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            gather(&library, &two[1], 2.0)
        });
        assert_eq!(gather(&library, &two[0], 1.0), expected);
        assert_eq!(second.join().unwrap(), expected);
    });
}

/// Whoever waits for a device that does not come goes on once the places are given up.
pub(super) fn aborts() {
    let library = library();
    let two = two(&library);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gather(&library, &two[0], 1.0));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!first.is_finished());
        // SAFETY: the function has this type; the place is not used any more.
        let code = unsafe {
            let abort: Symbol<'_, Abort> = library.get("ncclCommAbort").unwrap();
            abort(two[1].1)
        };
        assert_eq!(code, 0);
        assert_eq!(first.join().unwrap(), [0.0; 2 * N]);
    });
}
