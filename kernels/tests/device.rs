//! Setting up a device.

use kernels::{CpuOptions, Device, Isa};

#[test]
fn a_device_says_what_it_is() {
    let device = Device::cpu(CpuOptions {
        n_threads: Some(1),
        isa: Some(Isa::Scalar),
    });
    assert_eq!(device.describe(), "CPU, 1 thread, scalar");
    let device = Device::cpu(CpuOptions {
        n_threads: Some(3),
        isa: None,
    });
    let expected = format!("CPU, 3 threads, {}", Isa::best());
    assert_eq!(device.clone().describe(), expected);
}

#[test]
fn every_machine_has_the_plainest_instruction_set() {
    let available: Vec<Isa> = Isa::available().collect();
    assert_eq!(available[0], Isa::Scalar);
    assert!(available.is_sorted());
    assert!(
        available
            .iter()
            .rev()
            .take(2)
            .any(|isa| *isa == Isa::best())
    );
}

#[test]
#[should_panic(expected = "a pool needs at least one thread")]
fn no_threads_cannot_work() {
    Device::cpu(CpuOptions {
        n_threads: Some(0),
        isa: None,
    });
}
