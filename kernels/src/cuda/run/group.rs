//! Devices that compute one model together, each a part of every layer.
//!
//! What the parts add up to is gathered first and then summed by each device in the order of the
//! devices, instead of by NCCL's all-reduce: with more than two devices that sums in an order
//! that depends on where in a message a value lies, and so a row's bits would depend on its
//! company.
//!
//! A device that waits for the others waits for ever if one of them does not come. So a step that
//! has failed still takes part in all gathers; and a device that cannot ends the group.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::driver::{CudaError, Driver, text};
use super::functions::start;
use super::gpu::Gpu;
use super::nccl::{Comm, Nccl};
use super::step::Step;
use crate::cuda::DevicePtr;
use crate::{CudaOptions, Part};

/// What devices of a group share.
#[derive(Debug)]
struct Group {
    nccl: Nccl,
    /// Of each device, until the group has ended.
    comms: Vec<Mutex<Option<Comm>>>,
    /// Why it has ended.
    ended: OnceLock<String>,
}

/// A device's place in a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    group: Arc<Group>,
    pub(crate) part: Part,
}

/// Values that a step gathers from all devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    /// Launches that come before.
    pub(super) after: usize,
    pub(super) from: DevicePtr,
    /// Room for the values of all devices.
    pub(super) to: DevicePtr,
    pub(super) n: usize,
}

impl Gpu {
    /// Devices `options.ordinal` and the following, as a group of `n`.
    pub(crate) fn open_group(options: CudaOptions, n: usize) -> Result<Vec<Self>, CudaError> {
        let ordinals: Vec<usize> = (options.ordinal..options.ordinal + n).collect();
        let drivers = ordinals.iter().map(|&ordinal| Driver::open(ordinal));
        let drivers: Vec<Driver> = drivers.collect::<Result<_, _>>()?;
        let of = |driver: &Driver| (driver.name.clone(), driver.capability);
        if let Some(other) = drivers.iter().find(|driver| of(driver) != of(&drivers[0])) {
            return Err(CudaError::Unlike {
                first: drivers[0].name.clone(),
                other: other.name.clone(),
            });
        }
        let nccl = Nccl::open()?;
        let comms = nccl.join(&ordinals).map_err(|error| CudaError::Driver {
            doing: "joining the devices through NCCL",
            error,
        })?;
        let group = Arc::new(Group {
            nccl,
            comms: comms.into_iter().map(Some).map(Mutex::new).collect(),
            ended: OnceLock::new(),
        });
        let place = |index| Member {
            group: group.clone(),
            part: Part { index, of: n },
        };
        let gpus = drivers.into_iter().zip(&ordinals).enumerate();
        let gpus = gpus.map(|(i, (driver, &ordinal))| {
            let options = CudaOptions { ordinal, ..options };
            Self::of(driver, options, Some(place(i)))
        });
        let gpus: Vec<Self> = gpus.collect();
        try_out(&gpus)?;
        Ok(gpus)
    }

    /// Which part of a model this device computes.
    pub(crate) fn part(&self) -> Part {
        self.member.as_ref().map_or(Part::WHOLE, |own| own.part)
    }

    /// For people: "2 parts through NCCL 2.28.3", if it is one of several.
    pub(crate) fn describe_group(&self) -> Option<String> {
        let member = self.member.as_ref()?;
        let (n, version) = (member.part.of, &member.group.nccl.version);
        Some(format!("{n} parts through NCCL {version}"))
    }

    /// `x` of all devices, summed in their order; `all`: room for that of all.
    pub(crate) fn sum_parts(&self, x: DevicePtr, len: usize, all: DevicePtr) {
        let Part { index, of } = self.part();
        self.step().gather(x, all, len);
        let part = |i: usize| all.offset(4 * len * i);
        // Two values may be added in either order, so the first two begin with their own.
        let begins = if index < 2 { index } else { 0 };
        if begins != index {
            self.copy(part(begins), len, x);
        }
        for i in (0..of).filter(|&i| i != begins) {
            self.add_scaled(x, part(i), 1.0, len);
        }
    }

    /// Nobody is to wait for this device any more.
    pub(crate) fn leave_group(&self, why: &str) {
        if let Some(member) = &self.member {
            member.end(why);
        }
    }
}

/// Gathers once, so that NCCL has what it works with before memory is planned, and that what does
/// not work is told at the start.
fn try_out(gpus: &[Gpu]) -> Result<(), CudaError> {
    let gather = |gpu: &Gpu| -> Result<(), String> {
        let (Some(member), driver) = (&gpu.member, &gpu.driver) else {
            return Ok(());
        };
        let done = member.gather_once(driver);
        if let Err(why) = &done {
            member.end(why);
        }
        done
    };
    let done: Result<Vec<()>, String> = std::thread::scope(|scope| {
        let threads = gpus.iter().map(|gpu| scope.spawn(move || gather(gpu)));
        let threads: Vec<_> = threads.collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            let panicked = |_| Err("the program panicked".to_owned());
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(join).collect()
    });
    let failed = |error| CudaError::Driver {
        doing: "trying NCCL out",
        error,
    };
    done.map(|_| ()).map_err(failed)
}

impl Member {
    fn gather_once(&self, driver: &Arc<Driver>) -> Result<(), String> {
        /// As many as NCCL sends in pieces.
        const N: usize = 1 << 18;
        let alloc = |n| driver.alloc(4 * n).map_err(|refused| refused.to_string());
        let (from, to) = (alloc(N)?, alloc(N * self.part.of)?);
        from.clear().map_err(text)?;
        let gather = Gather {
            after: 0,
            from: DevicePtr(from.at()),
            to: DevicePtr(to.at()),
            n: N,
        };
        self.all_gather(driver, gather)?;
        driver.wait(driver.steps()).map_err(text)
    }

    fn comm(&self, index: usize) -> MutexGuard<'_, Option<Comm>> {
        let comm = self.group.comms[index].lock();
        comm.unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the group has ended, if it has.
    pub(super) fn ended(&self) -> Option<&str> {
        self.group.ended.get().map(String::as_str)
    }

    /// Ends the group for all devices: what waits goes on, and nothing works any more.
    pub(super) fn end(&self, why: &str) {
        // The first reason is kept.
        self.group.ended.set(why.to_owned()).ok();
        for index in 0..self.part.of {
            if let Some(comm) = self.comm(index).take() {
                // SAFETY: taken from where everybody looks for it. A failure changes nothing:
                // the group has ended.
                unsafe { self.group.nccl.abort(comm) }.ok();
            }
        }
    }

    fn all_gather(&self, driver: &Driver, gather: Gather) -> Result<(), String> {
        let Gather { from, to, n, .. } = gather;
        let (comm, nccl) = (self.comm(self.part.index), &self.group.nccl);
        let ended = || self.ended().unwrap_or("the group has ended").to_owned();
        let comm = comm.ok_or_else(ended)?;
        // SAFETY: the buffers were checked when the gather was noted, and live until the stream
        // has been waited for, like those of launches; the lock keeps the place from being ended.
        unsafe { nccl.all_gather(comm, from, to, n, driver.steps()) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for comm in &self.comms {
            let comm = comm.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(comm) = comm {
                // SAFETY: nobody else has the group. Unlike an orderly end this never waits.
                unsafe { self.nccl.abort(comm) }.ok();
            }
        }
    }
}

impl Step {
    /// Notes a gather. It is never left out, though the step may have failed: others wait for it.
    fn gather(&mut self, from: DevicePtr, to: DevicePtr, n: usize) {
        self.begin();
        let after = self.launches.len();
        self.gathers.push(Gather { after, from, to, n });
    }

    /// Starts launches and gathers in the order they were noted. After a launch that fails only
    /// gathers are started.
    pub(super) fn start_with_gathers(&mut self, member: &Member) -> Result<(), String> {
        let mut done = self.send();
        let driver = &self.driver;
        let mut next = 0;
        let ends = self
            .gathers
            .iter()
            .map(|gather| (gather.after, Some(*gather)));
        let ends: Vec<_> = ends.chain([(self.launches.len(), None)]).collect();
        for (end, gather) in ends {
            for i in next..end {
                let (launch, function) = (&self.launches[i], self.handles[i]);
                done = done.and_then(|()| {
                    // SAFETY: as in `Step::start_all`.
                    let started = unsafe { start(function, launch, driver.steps()) };
                    started.map_err(super::driver::failed(launch.kernel))
                });
            }
            next = end;
            let Some(gather) = gather else { break };
            if let Err(why) = member.all_gather(driver, gather) {
                let why = format!("gathering from all devices: {why}");
                member.end(&why);
                return Err(why);
            }
        }
        done
    }
}
