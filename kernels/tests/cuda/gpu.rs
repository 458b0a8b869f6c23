//! The device that kernels are tested on: a simulated one or, if `UNDERSTUDY_TEST_GPU` names one
//! by its number, a real one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use kernels::cuda::{self, BareGpu, DevicePtr, Launch};
use ptxsim::{Counters, Memory, Module, Plain};

/// Compute capabilities that images differ for.
pub(crate) const CAPABILITIES: [(u32, u32); 3] = [(8, 0), (8, 9), (9, 0)];

type Modules = BTreeMap<(&'static str, (u32, u32)), Arc<Module>>;

/// Parsed images, for all tests of the process.
static MODULES: OnceLock<Mutex<Modules>> = OnceLock::new();

pub(crate) struct Gpu {
    capability: (u32, u32),
    machine: Machine,
}

enum Machine {
    Simulated(Memory),
    Real(BareGpu),
}

/// What a real device must not fail at in a test.
fn done<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|error| panic!("the device: {error}"))
}

fn bytes_of<T: Plain>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
    values.iter().for_each(|value| value.put(&mut bytes));
    bytes
}

impl Gpu {
    pub(crate) fn new() -> Self {
        Self::of(CAPABILITIES[0])
    }

    /// A device of this compute capability; a real one has its own.
    pub(crate) fn of(capability: (u32, u32)) -> Self {
        let Ok(number) = std::env::var("UNDERSTUDY_TEST_GPU") else {
            let machine = Machine::Simulated(Memory::new());
            return Self {
                capability,
                machine,
            };
        };
        let number = number.parse().expect("the number of a device");
        let real = done(BareGpu::open(number).map_err(|error| error.to_string()));
        Self {
            capability: real.capability(),
            machine: Machine::Real(real),
        }
    }

    pub(crate) fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Whether launches are checked and counted.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.machine, Machine::Simulated(_))
    }

    pub(crate) fn upload<T: Plain>(&mut self, values: &[T]) -> DevicePtr {
        let at = self.alloc(values.len() * T::BYTES);
        self.write(at, &bytes_of(values));
        at
    }

    /// Memory that nothing has written.
    pub(crate) fn alloc(&mut self, n_bytes: usize) -> DevicePtr {
        match &mut self.machine {
            Machine::Simulated(memory) => DevicePtr(memory.alloc(n_bytes)),
            Machine::Real(real) => done(real.alloc(n_bytes)),
        }
    }

    pub(crate) fn write(&self, at: DevicePtr, bytes: &[u8]) {
        match &self.machine {
            Machine::Simulated(memory) => memory.write(at.0, bytes).expect("within an allocation"),
            Machine::Real(real) => done(real.write(at, bytes)),
        }
    }

    pub(crate) fn download<T: Plain>(&self, at: DevicePtr, n: usize) -> Vec<T> {
        match &self.machine {
            Machine::Simulated(memory) => {
                let found = memory.download(at.0, n);
                found.unwrap_or_else(|fault| panic!("a result is not there: {fault}"))
            }
            Machine::Real(real) => {
                let mut bytes = vec![0; n * T::BYTES];
                done(real.read(at, &mut bytes));
                bytes.chunks_exact(T::BYTES).map(T::get).collect()
            }
        }
    }

    /// Runs a launch; a fault fails the test, of a simulated device with kernel, line and thread.
    /// A real device counts nothing.
    pub(crate) fn run(&self, launch: &Launch) -> Counters {
        if launch.is_empty() {
            return Counters::default();
        }
        let memory = match &self.machine {
            Machine::Simulated(memory) => memory,
            Machine::Real(real) => {
                done(real.run(launch));
                return Counters::default();
            }
        };
        let module = self.module(launch.image);
        let kernel = module.kernel(launch.kernel).expect("a kernel of the image");
        let offsets = (0..).map_while(|i| kernel.param_at(i));
        let expected: Vec<usize> = offsets.map(|(offset, _)| offset).collect();
        assert_eq!(launch.params.offsets(), expected, "{}", launch.kernel);
        let shape = ptxsim::Launch::new(launch.grid, [launch.threads, 1, 1])
            .with_shared(launch.shared_bytes as usize);
        match kernel.launch_packed(&shape, launch.params.bytes(), memory) {
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
