//! The driver's state, and what moves commands through it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ptxsim::{Fault, FaultKind, Memory, Module, Options};

use crate::capture::{Capture, Graph};
use crate::clique::Clique;
use crate::command::{Command, Function, Place};
use crate::control::Control;
use crate::device::Device;
use crate::error::Error;
use crate::report::{append, tell};
use crate::settings::Settings;
use crate::stream::{Event, Stream};

/// Everything behind the API. Handles are numbers, so a wrong one is found, not followed.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) control: Control,
    pub(crate) devices: Vec<Device>,
    pub(crate) streams: BTreeMap<usize, Stream>,
    pub(crate) events: BTreeMap<usize, Event>,
    pub(crate) modules: BTreeMap<usize, Arc<Module>>,
    pub(crate) functions: BTreeMap<usize, Function>,
    pub(crate) captures: BTreeMap<usize, Capture>,
    pub(crate) graphs: BTreeMap<usize, Graph>,
    pub(crate) cliques: BTreeMap<usize, Clique>,
    /// Pinned host memory: address and length.
    pub(crate) pinned: BTreeMap<usize, usize>,
    next_handle: usize,
}

/// A library has one state, like the driver that this one stands in for.
static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// Told whenever ranks have met, or will not.
static MET: Condvar = Condvar::new();

/// Tells all that wait in [`until_ready`].
pub(crate) fn tell_met() {
    MET.notify_all();
}

/// Runs `work` again and again as long as it is not ready because a stream waits for other
/// devices' streams, which other threads move.
pub(crate) fn until_ready(
    mut work: impl FnMut(&mut Driver) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut driver = lock();
    loop {
        let done = work(driver.as_mut().ok_or(Error::NOT_INITIALIZED)?);
        if done != Err(Error::NOT_READY) {
            return done;
        }
        driver = MET.wait(driver).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The state, if there is one.
pub(crate) fn lock() -> MutexGuard<'static, Option<Driver>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(crate) fn new(settings: Settings) -> Self {
        let device = |ordinal| Device::new(ordinal, settings.arch, settings.memory_bytes);
        let devices: Vec<Device> = (0..settings.n_devices).map(device).collect();
        // The default streams have the devices' ordinals as handles.
        let streams = (0..settings.n_devices).map(|n| (n as usize, Stream::new(n)));
        Self {
            control: Control::new(settings.control.clone()),
            devices,
            streams: streams.collect(),
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            captures: BTreeMap::new(),
            graphs: BTreeMap::new(),
            cliques: BTreeMap::new(),
            pinned: BTreeMap::new(),
            next_handle: 0x1000,
            settings,
        }
    }

    /// A handle that was never given out.
    pub(crate) fn handle(&mut self) -> usize {
        self.next_handle += 16;
        self.next_handle
    }

    pub(crate) fn function(&self, handle: usize) -> Result<&Function, Error> {
        self.functions.get(&handle).ok_or(Error::INVALID_HANDLE)
    }

    /// The device, unless its context was lost.
    pub(crate) fn device(&mut self, ordinal: u32) -> Result<&mut Device, Error> {
        let device = self.devices.get_mut(ordinal as usize);
        let device = device.ok_or(Error::INVALID_DEVICE)?;
        match device.lost {
            Some(error) => Err(error),
            None => Ok(device),
        }
    }

    /// The memory of the device that an address belongs to.
    pub(crate) fn memory_of(&mut self, address: u64) -> Result<&mut Memory, Error> {
        let ordinal = Memory::ordinal_of(address) as usize;
        let device = self.devices.get_mut(ordinal).ok_or(Error::INVALID_VALUE)?;
        Ok(&mut device.memory)
    }

    /// Whether host memory was allocated by the driver, so that copies of it may be late.
    pub(crate) fn is_pinned(&self, at: usize, len: usize) -> bool {
        let below = self.pinned.range(..=at).next_back();
        below.is_some_and(|(begin, size)| at + len <= begin + size)
    }

    /// Gives a command to a stream.
    pub(crate) fn enqueue(&mut self, stream: usize, command: Command) -> Result<(), Error> {
        let found = self.streams.get_mut(&stream).ok_or(Error::INVALID_HANDLE)?;
        let device = found.device;
        if let Some(capture) = found.capture {
            let capture = self.captures.get_mut(&capture);
            capture.ok_or(Error::INVALID_HANDLE)?.commands.push(command);
            return Ok(());
        }
        found.queue.push_back(command);
        self.device(device)?;
        if self.settings.eager {
            return left_waiting(self.drain(stream));
        }
        Ok(())
    }

    /// Runs all commands of a stream, and those of others that they wait for; not ready: it
    /// waits for ranks of other devices.
    pub(crate) fn drain(&mut self, stream: usize) -> Result<(), Error> {
        while self.step(stream)? {}
        Ok(())
    }

    /// Runs all commands of all streams.
    pub(crate) fn drain_all(&mut self) -> Result<(), Error> {
        let streams: Vec<usize> = self.streams.keys().copied().collect();
        let results: Vec<_> = streams
            .into_iter()
            .map(|stream| left_waiting(self.drain(stream)))
            .collect();
        results.into_iter().collect()
    }

    /// Runs the next command of a stream; false if there is none.
    pub(crate) fn step(&mut self, stream: usize) -> Result<bool, Error> {
        let found = self.streams.get_mut(&stream).ok_or(Error::INVALID_HANDLE)?;
        let device = found.device;
        let next = found.queue.front();
        if let Some(&Command::Gather(gather)) = next
            && self.devices[device as usize].lost.is_none()
            && !self.meet(device, gather)
        {
            return Err(Error::NOT_READY);
        }
        let found = self.streams.get_mut(&stream).ok_or(Error::INVALID_HANDLE)?;
        let Some(command) = found.queue.pop_front() else {
            self.device(device)?;
            return Ok(false);
        };
        if let Some(error) = self.devices[device as usize].lost {
            return Err(error);
        }
        if let Err(error) = self.execute(device, command) {
            self.devices[device as usize].lost = Some(error);
            return Err(error);
        }
        Ok(true)
    }

    fn execute(&mut self, device: u32, command: Command) -> Result<(), Error> {
        match command {
            Command::Launch {
                function,
                launch,
                params,
            } => self.run(device, &function, &launch, &params),
            Command::Copy { to, from, len } => self.copy(to, from, len),
            Command::Write { to, bytes } => {
                let written = self.memory_of(to)?.write(to, &bytes);
                self.checked("copy to the device", written)
            }
            Command::Fill { to, pattern, n } => {
                let bytes = pattern.repeat(n);
                let written = self.memory_of(to)?.write(to, &bytes);
                self.checked("fill", written)
            }
            Command::Free(address) => {
                let freed = self.memory_of(address)?.free(address);
                self.checked("free", freed)
            }
            Command::Record { event, nth } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.n_reached = event.n_reached.max(nth);
                    event.at = Some(Instant::now());
                }
                Ok(())
            }
            Command::Wait { event, nth } => self.wait(event, nth),
            Command::Gather(gather) => self.leave(gather),
            Command::Host(call) => {
                (call.function)(call.argument as *mut _);
                Ok(())
            }
        }
    }

    /// Runs what an event's nth record stands behind.
    pub(crate) fn wait(&mut self, event: usize, nth: u64) -> Result<(), Error> {
        loop {
            // An event that was destroyed had been recorded, and its stream goes on by itself.
            let Some(found) = self.events.get(&event) else {
                return Ok(());
            };
            if found.n_reached >= nth {
                return Ok(());
            }
            let stream = found.stream;
            if !self.step(stream)? {
                // The record went to another stream before the last one.
                return self.drain_all();
            }
        }
    }

    fn run(
        &mut self,
        device: u32,
        function: &Function,
        launch: &ptxsim::Launch,
        params: &[u8],
    ) -> Result<(), Error> {
        std::thread::sleep(self.control.delay(&function.name));
        if let Err(error) = self.control.launch(&function.name, device, true) {
            self.complain(&format!("{}: injected error {}", function.name, error.0));
            return Err(error);
        }
        let kernel = function.module.kernel(&function.name);
        let kernel = kernel.ok_or(Error::NOT_FOUND)?;
        let options = Options {
            strict_global: !self.settings.lenient,
            ..launch.options
        };
        let launch = launch.with_options(options);
        let memory = &self.devices[device as usize].memory;
        match kernel.launch_packed(&launch, params, memory) {
            Ok(report) => {
                if let Some(trace) = &self.settings.trace {
                    let (grid, block) = (launch.grid, launch.block);
                    let name = kernel.name();
                    append(
                        trace,
                        &format!("{device} {name} {grid:?} {block:?} {report:?}"),
                    );
                }
                Ok(())
            }
            Err(fault) => {
                self.complain(&fault.to_string());
                Err(code(&fault))
            }
        }
    }

    fn copy(&mut self, to: Place, from: Place, len: usize) -> Result<(), Error> {
        let done = match (to, from) {
            (Place::Device(to), Place::Host(from)) => {
                // SAFETY: the caller of the copy promised that so many bytes can be read there
                // until the stream has done it.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, len) };
                self.memory_of(to)?.write(to, bytes)
            }
            (Place::Host(to), Place::Device(from)) => {
                // SAFETY: as above, for writing.
                let bytes = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, len) };
                self.memory_of(from)?.read(from, bytes).map(|_| ())
            }
            (Place::Device(to), Place::Device(from)) => {
                if Memory::ordinal_of(to) == Memory::ordinal_of(from) {
                    self.memory_of(to)?.copy(to, from, len)
                } else {
                    let mut bytes = vec![0; len];
                    let read = self.memory_of(from)?.read(from, &mut bytes);
                    let memory = self.memory_of(to)?;
                    read.and_then(|_| memory.write(to, &bytes))
                }
            }
            (Place::Host(_), Place::Host(_)) => return Err(Error::INVALID_VALUE),
        };
        self.checked("copy", done)
    }

    pub(crate) fn checked(&self, what: &str, done: Result<(), FaultKind>) -> Result<(), Error> {
        done.map_err(|kind| {
            self.complain(&format!("{what}: {kind}"));
            Error::ILLEGAL_ADDRESS
        })
    }

    /// Tells of a fault.
    pub(crate) fn complain(&self, text: &str) {
        tell(text);
        if let Some(report) = &self.settings.report {
            append(report, text);
        }
    }
}

/// A stream that waits for other devices is left where it is.
fn left_waiting(drained: Result<(), Error>) -> Result<(), Error> {
    match drained {
        Err(Error::NOT_READY) => Ok(()),
        other => other,
    }
}

/// The code that the driver would give for a fault.
fn code(fault: &Fault) -> Error {
    match fault.kind {
        FaultKind::OutOfBounds { .. } | FaultKind::Freed { .. } => Error::ILLEGAL_ADDRESS,
        FaultKind::Misaligned { .. } => Error::MISALIGNED_ADDRESS,
        FaultKind::Launch { .. } => Error::INVALID_VALUE,
        _ => Error::LAUNCH_FAILED,
    }
}
