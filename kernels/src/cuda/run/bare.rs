//! A GPU without ops, for tests of kernels and measurements.

use std::sync::Arc;
use std::time::Instant;

use super::driver::{Allocation, CudaError, Driver, text};
use super::functions::{Functions, start};
use crate::cuda::{DevicePtr, Launch};

/// Memory and launches of a device. Everything waits until it is done.
#[derive(Debug)]
pub struct BareGpu {
    driver: Arc<Driver>,
    functions: Functions,
    allocations: Vec<Allocation>,
}

impl BareGpu {
    /// Takes device `ordinal`.
    ///
    /// # Errors
    /// There is no driver, no such device, or the device is too old.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let driver = Arc::new(Driver::open(ordinal)?);
        Ok(Self {
            functions: Functions::new(driver.clone()),
            driver,
            allocations: Vec::new(),
        })
    }

    /// Memory with anything in it; it lives as long as this.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn alloc(&mut self, n_bytes: usize) -> Result<DevicePtr, String> {
        let memory = self.driver.alloc(n_bytes.max(1));
        let memory = memory.map_err(|refused| refused.to_string())?;
        let at = DevicePtr(memory.at());
        self.allocations.push(memory);
        Ok(at)
    }

    /// The allocation that holds so many bytes from `at` on, and how far into it that is.
    fn find(&self, at: DevicePtr, n_bytes: usize) -> Result<(&Allocation, usize), String> {
        let holds = |memory: &&Allocation| {
            at.0 >= memory.at() && at.0 + n_bytes as u64 <= memory.at() + memory.n_bytes() as u64
        };
        let found = self.allocations.iter().find(holds);
        let memory = found.ok_or_else(|| format!("{n_bytes} bytes at {at:?} are not allocated"))?;
        Ok((memory, (at.0 - memory.at()) as usize))
    }

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// They do not fit an allocation, or the device fails.
    pub fn write(&self, at: DevicePtr, bytes: &[u8]) -> Result<(), String> {
        let (memory, offset) = self.find(at, bytes.len())?;
        memory.write_at(offset, bytes).map_err(text)
    }

    /// Copies bytes to the host.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn read(&self, at: DevicePtr, bytes: &mut [u8]) -> Result<(), String> {
        let (memory, offset) = self.find(at, bytes.len())?;
        memory.read_at(offset, bytes).map_err(text)
    }

    /// Runs a kernel.
    ///
    /// # Errors
    /// The kernel cannot be started, or fails.
    pub fn run(&self, launch: &Launch) -> Result<(), String> {
        self.time(launch, 1).map(|_| ())
    }

    /// Runs a kernel so many times and gives the seconds from the first start to the last end.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn time(&self, launch: &Launch, n_times: usize) -> Result<f64, String> {
        let function = self.functions.of(launch)?;
        let failed = |error| format!("{}: {}", launch.kernel, text(error));
        self.driver.bind().map_err(failed)?;
        let began = Instant::now();
        for _ in 0..n_times {
            // SAFETY: allocations live as long as this, which waits for the kernel; that they
            // are as large as the launch takes them to be is what its caller tests.
            unsafe { start(function, launch, self.driver.steps()) }.map_err(failed)?;
        }
        self.driver.wait(self.driver.steps()).map_err(failed)?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.driver.name
    }

    /// Compute capability.
    pub fn capability(&self) -> (u32, u32) {
        self.driver.capability
    }
}
