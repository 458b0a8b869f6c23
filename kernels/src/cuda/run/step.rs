//! A step being put together. Ops only note what is to be started; everything is started when
//! somebody wants a result, eagerly or, if the very same launches were seen before, as a graph.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::{DriverError, result};

use super::arena::Arena;
use super::driver::{Driver, failed, text};
use super::flight::{Flight, Landing};
use super::functions::{Function, Functions, start};
use super::graphs::Graphs;
use super::group::{Gather, Member};
use super::scratch::Scratch;
use crate::cuda::{DevicePtr, Launch};

/// Bytes of the first arena; it grows to its largest step once.
const ARENA_BYTES: usize = 1 << 20;

/// Launches that are on their way and what they stand on.
#[derive(Debug)]
pub(crate) struct Step {
    pub(super) driver: Arc<Driver>,
    functions: Arc<Functions>,
    pub(super) launches: Vec<Launch>,
    pub(super) handles: Vec<Function>,
    /// Between launches; none on a device alone.
    pub(super) gathers: Vec<Gather>,
    member: Option<Member>,
    pub(super) arena: Option<Arena>,
    graphs: Graphs,
    pub(crate) scratch: Scratch,
    /// Steps that were started, the first first.
    pub(super) flights: VecDeque<Flight>,
    /// Free places for their answers.
    pub(super) landings: Vec<Landing>,
    /// Where the answers of the last one are.
    pub(super) answers: DevicePtr,
    /// Work was started that nobody has waited for.
    pub(super) is_busy: bool,
    /// Why the step is of no use. Nothing is started any more until somebody has taken it.
    pub(super) fault: Option<String>,
    /// Why the device is of no use.
    lost: Option<String>,
}

impl Step {
    pub(crate) fn new(
        driver: Arc<Driver>,
        functions: Arc<Functions>,
        graphs: bool,
        member: Option<Member>,
    ) -> Self {
        Self {
            scratch: Scratch::new(driver.clone()),
            driver,
            functions,
            launches: Vec::new(),
            handles: Vec::new(),
            gathers: Vec::new(),
            member,
            arena: None,
            graphs: Graphs::new(graphs),
            flights: VecDeque::new(),
            landings: Vec::new(),
            answers: DevicePtr::NULL,
            is_busy: false,
            fault: None,
            lost: None,
        }
    }

    /// The step has failed; the first reason is kept.
    pub(crate) fn fail(&mut self, why: String) {
        self.launches.clear();
        self.handles.clear();
        for gather in &mut self.gathers {
            gather.after = 0;
        }
        if self.fault.is_none() {
            self.fault = Some(why);
        }
    }

    /// Notes a launch.
    pub(crate) fn push(&mut self, launch: Launch) {
        if self.fault.is_some() || launch.is_empty() {
            return;
        }
        match self.functions.of(&launch) {
            Ok(function) => {
                self.begin();
                self.launches.push(launch);
                self.handles.push(function);
            }
            Err(why) => self.fail(why),
        }
    }

    /// Something is about to be noted.
    pub(super) fn begin(&self) {
        if !self.is_busy && self.launches.is_empty() && self.gathers.is_empty() {
            self.driver.begin_work();
        }
    }

    /// Brings bytes of the host to the device; no bytes are null.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> DevicePtr {
        if bytes.is_empty() || self.fault.is_some() {
            return DevicePtr::NULL;
        }
        if let Some(at) = self.arena.as_mut().and_then(|arena| arena.put(bytes)) {
            return at;
        }
        self.grow_arena(Arena::room(bytes.len()));
        let at = self.arena.as_mut().and_then(|arena| arena.put(bytes));
        at.unwrap_or(DevicePtr::NULL)
    }

    fn grow_arena(&mut self, room: usize) {
        // What was put is read by what was noted.
        self.wait();
        let old = self
            .arena
            .take()
            .map_or(ARENA_BYTES / 2, |arena| arena.n_bytes());
        match Arena::new(&self.driver, (2 * old).max(2 * room)) {
            Ok(arena) => self.arena = Some(arena),
            Err(refused) => self.fail(refused.to_string()),
        }
    }

    /// Starts what was noted.
    pub(crate) fn submit(&mut self) {
        if self.launches.is_empty() && self.gathers.is_empty() {
            return;
        }
        self.is_busy = true;
        let started = match self.member.clone() {
            Some(member) => self.start_with_gathers(&member),
            None => self.start_all(),
        };
        if let Err(error) = started {
            self.fail(error);
        }
        self.launches.clear();
        self.handles.clear();
        self.gathers.clear();
    }

    /// Sends what was put. Its device is then that of the thread.
    pub(super) fn send(&mut self) -> Result<(), String> {
        let driver = &self.driver;
        driver.bind().map_err(failed("the device"))?;
        let sent = self.arena.as_mut().map(|arena| arena.send(driver));
        sent.unwrap_or(Ok(()))
            .map_err(failed("copying a step's lists"))
    }

    fn start_all(&mut self) -> Result<(), String> {
        self.send()?;
        let driver = &self.driver;
        if self.graphs.run(driver, &self.launches, &self.handles)? {
            return Ok(());
        }
        for (launch, function) in self.launches.iter().zip(&self.handles) {
            // SAFETY: ops made the launches from buffers that are as large as they say and that
            // live until `wait` (the driver keeps what is dropped before); the stream keeps
            // order.
            unsafe { start(*function, launch, driver.steps()) }.map_err(failed(launch.kernel))?;
        }
        Ok(())
    }

    /// Starts what was noted and waits until all is done.
    pub(crate) fn wait(&mut self) {
        self.submit();
        if self.is_busy
            && let Err(error) = self.driver.wait(self.driver.steps())
        {
            self.lose(error);
        }
        self.is_busy = false;
        if let Some(arena) = &mut self.arena {
            arena.reset();
        }
        self.driver.end_work();
    }

    /// Something that was started has failed, and so has whatever is on its way. Gives the reason.
    pub(super) fn lose(&mut self, error: DriverError) -> String {
        let why = format!("a kernel failed: {}", text(error));
        // An error that stays is the context's: everything in it is gone.
        if self.driver.wait(self.driver.steps()).is_err() {
            self.lost = Some(why.clone());
            // Others would wait for this device for ever.
            if let Some(member) = &self.member {
                member.end(&why);
            }
        }
        for flight in &mut self.flights {
            flight.fault.get_or_insert_with(|| why.clone());
        }
        self.fail(why.clone());
        why
    }

    /// Copies values of the device to `out` once all is done. Of a step that has failed nothing
    /// is copied.
    pub(crate) fn read(&mut self, from: DevicePtr, out: &mut [f32]) {
        self.submit();
        if self.fault.is_none() && !out.is_empty() {
            let stream = self.driver.steps();
            // SAFETY: the caller's buffer is as long, and `wait` ends the copy before `out` is
            // used by anybody.
            let copied = self
                .driver
                .bind()
                .and_then(|()| unsafe { result::memcpy_dtoh_async(out, from.0, stream) });
            self.is_busy = true;
            if let Err(error) = copied {
                self.fail(format!("copying a result: {}", text(error)));
            }
        }
        self.wait();
    }

    /// Why the device is of no use any more.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Ends a step: its failure, if it has failed.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.wait();
        if let Some(why) = self.member.as_ref().and_then(Member::ended) {
            self.lost = Some(why.to_owned());
        }
        let fault = self.fault.take();
        self.lost_text().or(fault).map_or(Ok(()), Err)
    }

    /// What is said of every step of a device that is lost.
    pub(super) fn lost_text(&self) -> Option<String> {
        let lost = self.lost.as_ref()?;
        Some(format!(
            "the GPU does not answer any more since {lost}; the server must be started again"
        ))
    }
}
