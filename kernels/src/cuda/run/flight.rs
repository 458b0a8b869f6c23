//! Steps that were started and that nobody has waited for: at most two. Each leaves its answers in
//! pinned memory of its own and is waited for by an event of its own, so that the first can be read
//! while the second runs.

use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::arena::Pinned;
use super::driver::{Driver, failed, text};
use super::step::Step;
use crate::cuda::DevicePtr;

/// Steps on their way.
const MOST: usize = 2;

/// Where the answers of a step arrive.
#[derive(Debug)]
pub(super) struct Landing {
    event: Event,
    answers: Pinned,
}

/// A step on its way.
#[derive(Debug)]
pub(super) struct Flight {
    number: u64,
    landing: Landing,
    n_bytes: usize,
    /// It has failed with another.
    pub(super) fault: Option<String>,
}

impl Step {
    /// Where the answers of the step that was started last are on the device.
    pub(crate) fn answers(&self) -> DevicePtr {
        self.answers
    }

    /// Starts what was noted and the copy of its answers, and goes on without waiting.
    ///
    /// # Errors
    /// It could not be started; nothing of it will be waited for.
    pub(crate) fn depart(&mut self, answers: DevicePtr, n_bytes: usize) -> Result<(), String> {
        self.submit();
        let departed = match &self.fault {
            Some(_) => Ok(()),
            None => self.send_off(answers, n_bytes),
        };
        if let Err(error) = departed {
            self.fail(error);
        }
        if self.fault.is_some() {
            return self.finish();
        }
        self.answers = answers;
        if let Some(arena) = &mut self.arena {
            arena.swap();
        }
        Ok(())
    }

    fn send_off(&mut self, answers: DevicePtr, n_bytes: usize) -> Result<(), String> {
        assert!(self.flights.len() < MOST, "the first is waited for first");
        let mut landing = self.landing(n_bytes).map_err(|error| error.to_string())?;
        let stream = self.driver.steps();
        self.driver.bind().map_err(failed("the device"))?;
        if n_bytes > 0 {
            let to = &mut landing.answers.bytes_mut()[..n_bytes];
            // SAFETY: both sides are as long, and nobody reads or drops the landing before its
            // event has been reached or the stream has been waited for.
            unsafe { result::memcpy_dtoh_async(to, answers.0, stream) }
                .map_err(failed("copying answers"))?;
        }
        landing
            .event
            .record()
            .map_err(failed("recording an event"))?;
        self.is_busy = true;
        self.flights.push_back(Flight {
            number: self.driver.next_step(),
            landing,
            n_bytes,
            fault: None,
        });
        Ok(())
    }

    /// A free one that is large enough.
    fn landing(&mut self, n_bytes: usize) -> Result<Landing, super::driver::CudaError> {
        let broken = |error: String| super::driver::CudaError::Driver {
            doing: "making room for answers",
            error,
        };
        let landing = match self.landings.pop() {
            Some(landing) => landing,
            None => Landing {
                event: Event::new(&self.driver).map_err(|error| broken(text(error)))?,
                answers: Pinned::new(&self.driver, 0).map_err(|error| broken(error.to_string()))?,
            },
        };
        if landing.answers.bytes().len() >= n_bytes {
            return Ok(landing);
        }
        let n_bytes = n_bytes.next_power_of_two().max(4096);
        let answers = Pinned::new(&self.driver, n_bytes);
        Ok(Landing {
            answers: answers.map_err(|error| broken(error.to_string()))?,
            ..landing
        })
    }

    /// Waits for the step that was started first: its answers.
    ///
    /// # Errors
    /// It has failed, or no step was started.
    pub(crate) fn arrive(&mut self) -> Result<Vec<u32>, String> {
        let mut flight = self.flights.pop_front().ok_or("no step was started")?;
        let driver = self.driver.clone();
        let reached = driver.bind().and_then(|()| flight.landing.event.wait());
        if let Err(error) = reached {
            flight.fault = Some(self.lose(error));
        }
        driver.end_step(flight.number);
        if self.flights.is_empty() && self.launches.is_empty() && self.gathers.is_empty() {
            self.is_busy = false;
            driver.end_work();
        }
        if let Some(fault) = self.lost_text().or(flight.fault) {
            // The driver may still write there.
            self.wait();
            self.fault = None;
            return Err(fault);
        }
        let bytes = &flight.landing.answers.bytes()[..flight.n_bytes];
        let words = bytes.as_chunks::<4>().0.iter();
        let words = words.map(|word| u32::from_le_bytes(*word)).collect();
        self.landings.push(flight.landing);
        Ok(words)
    }
}

/// A mark in the stream of steps.
#[derive(Debug)]
struct Event {
    driver: Arc<Driver>,
    event: sys::CUevent,
}

// SAFETY: a handle of the driver's that any thread may use.
unsafe impl Send for Event {}

impl Event {
    fn new(driver: &Arc<Driver>) -> Result<Self, DriverError> {
        driver.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        Ok(Self {
            driver: driver.clone(),
            event,
        })
    }

    /// Marks what was given to the stream so far.
    fn record(&self) -> Result<(), DriverError> {
        // SAFETY: both live.
        unsafe { result::event::record(self.event, self.driver.steps()) }
    }

    /// Waits for what was marked.
    fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: it lives.
        unsafe { result::event::synchronize(self.event) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.driver.bind().is_ok() {
            // SAFETY: nobody else has it. A failure means that the context is lost.
            unsafe { result::event::destroy(self.event) }.ok();
        }
    }
}
