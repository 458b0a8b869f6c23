//! A simulated device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use kernels::cuda::{self, DevicePtr, Launch};
use ptxsim::{Counters, Memory, Module, Plain};

/// Compute capabilities that images differ for.
pub(crate) const CAPABILITIES: [(u32, u32); 3] = [(8, 0), (8, 9), (9, 0)];

type Modules = BTreeMap<(&'static str, (u32, u32)), Arc<Module>>;

/// Parsed images, for all tests of the process.
static MODULES: OnceLock<Mutex<Modules>> = OnceLock::new();

pub(crate) struct Gpu {
    capability: (u32, u32),
    memory: Memory,
}

impl Gpu {
    pub(crate) fn new() -> Self {
        Self::of(CAPABILITIES[0])
    }

    pub(crate) fn of(capability: (u32, u32)) -> Self {
        let memory = Memory::new();
        Self { capability, memory }
    }

    pub(crate) fn upload<T: Plain>(&mut self, values: &[T]) -> DevicePtr {
        DevicePtr(self.memory.upload(values))
    }

    /// Memory that nothing has written.
    pub(crate) fn alloc(&mut self, n_bytes: usize) -> DevicePtr {
        DevicePtr(self.memory.alloc(n_bytes))
    }

    pub(crate) fn write(&self, at: DevicePtr, bytes: &[u8]) {
        self.memory
            .write(at.0, bytes)
            .expect("within an allocation");
    }

    pub(crate) fn download<T: Plain>(&self, at: DevicePtr, n: usize) -> Vec<T> {
        let found = self.memory.download(at.0, n);
        found.unwrap_or_else(|fault| panic!("a result is not there: {fault}"))
    }

    /// Runs a launch; a fault fails the test with kernel, line and thread.
    pub(crate) fn run(&self, launch: &Launch) -> Counters {
        if launch.is_empty() {
            return Counters::default();
        }
        let module = self.module(launch.image);
        let kernel = module.kernel(launch.kernel).expect("a kernel of the image");
        let offsets = (0..).map_while(|i| kernel.param_at(i));
        let expected: Vec<usize> = offsets.map(|(offset, _)| offset).collect();
        assert_eq!(launch.params.offsets(), expected, "{}", launch.kernel);
        let shape = ptxsim::Launch::new(launch.grid, [launch.threads, 1, 1])
            .with_shared(launch.shared_bytes as usize);
        match kernel.launch_packed(&shape, launch.params.bytes(), &self.memory) {
            Ok(report) => report.counters,
            Err(fault) => panic!("{fault}"),
        }
    }

    fn module(&self, name: &'static str) -> Arc<Module> {
        let image = cuda::images_for(self.capability).find(|image| image.name == name);
        let image = image.expect("an image of this name");
        let modules = MODULES.get_or_init(Mutex::default);
        let mut modules = modules.lock().expect("no test fails while it parses");
        let parse = || {
            let parsed = Module::parse(image.ptx);
            Arc::new(parsed.unwrap_or_else(|error| panic!("{name}: {error}")))
        };
        let key = (name, image.capability);
        Arc::clone(modules.entry(key).or_insert_with(parse))
    }
}
