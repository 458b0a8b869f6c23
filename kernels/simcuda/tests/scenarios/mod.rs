//! What a program does with the driver, and what must come of it.

mod faults;
mod gathers;
mod ordinary;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, DriverError, LaunchConfig, sys};
use cudarc::nvrtc::Ptx;

/// Name, settings of the machine, and what to do.
type Scenario = (&'static str, &'static [(&'static str, &'static str)], fn());

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("launches", &[], ordinary::launches),
    (
        "eager_launches",
        &[("SIMCUDA_EAGER", "1")],
        ordinary::launches,
    ),
    (
        "devices",
        &[("SIMCUDA_DEVICES", "2"), ("SIMCUDA_ARCH", "80")],
        ordinary::devices,
    ),
    ("meets", &[("SIMCUDA_DEVICES", "2")], gathers::meets),
    ("aborts", &[("SIMCUDA_DEVICES", "2")], gathers::aborts),
    ("graphs", &[], ordinary::graphs),
    ("forked_graphs", &[], ordinary::forked_graphs),
    ("late_copies", &[], ordinary::late_copies),
    ("events", &[], ordinary::events),
    (
        "shared_memory_limits",
        &[("SIMCUDA_ARCH", "89")],
        ordinary::shared_memory_limits,
    ),
    (
        "out_of_memory",
        &[("SIMCUDA_MEMORY_MIB", "4")],
        faults::out_of_memory,
    ),
    ("out_of_bounds", &[], faults::out_of_bounds),
    ("uninitialised", &[], faults::uninitialised),
    ("lenient", &[("SIMCUDA_LENIENT", "1")], faults::lenient),
    ("injected", &[], faults::injected),
    ("images", &[("SIMCUDA_ARCH", "80")], faults::images),
];

/// `out[i] = a[i] + b[i]` for `i < n`, and one that takes dynamic shared memory.
const TEXT: &str = "
.version 7.8
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 room[];
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 out, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    .reg .f32 %f<4>;
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.s32 %p1, %r5, %r1;
    @%p1 bra end;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd3, [out];
    mul.wide.s32 %rd4, %r5, 4;
    add.s64 %rd1, %rd1, %rd4;
    add.s64 %rd2, %rd2, %rd4;
    add.s64 %rd3, %rd3, %rd4;
    ld.global.f32 %f1, [%rd1];
    ld.global.f32 %f2, [%rd2];
    add.f32 %f3, %f1, %f2;
    st.global.f32 [%rd3], %f3;
end:
    ret;
}
.visible .entry wide()
{
    .reg .b32 %r<4>;
    mov.u32 %r1, room;
    mov.u32 %r2, %dynamic_smem_size;
    add.u32 %r1, %r1, %r2;
    st.shared.u32 [%r1+-4], 1;
    ret;
}
";

/// A context and a kernel of the module above. Events are not tracked: graphs cannot wait for
/// those from before a capture.
fn device(ordinal: usize) -> (Arc<CudaContext>, impl Fn(&str) -> CudaFunction) {
    // SAFETY: asks for a library by name.
    assert!(unsafe { sys::is_culib_present() });
    let context = CudaContext::new(ordinal).unwrap();
    // SAFETY: each scenario orders its streams itself.
    unsafe { context.disable_event_tracking() };
    let module = context.load_module(Ptx::from_src(TEXT)).unwrap();
    (context, move |name: &str| {
        module.load_function(name).unwrap()
    })
}

fn shape(n: usize) -> LaunchConfig {
    LaunchConfig::for_num_elems(n as u32)
}

fn numbers(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| i as f32 * step).collect()
}

/// The code of a failed call.
fn code<T>(done: Result<T, DriverError>) -> sys::CUresult {
    match done {
        Ok(_) => sys::CUresult::CUDA_SUCCESS,
        Err(DriverError(code)) => code,
    }
}

/// A file that the stand-in reads or writes.
fn file(name: &str) -> std::path::PathBuf {
    std::env::var_os(name).unwrap().into()
}
