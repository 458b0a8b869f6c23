//! Captured steps. A graph stands for one list of launches, arguments and all, so that a replay
//! starts exactly what would have been started one by one: it saves the driver's time for each
//! kernel, which is most of the time of a small step.
//!
//! Lists are equal for steps of as many rows, since what differs lies in memory at the same
//! places (see [`super::arena`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::driver::{Driver, text};
use super::functions::{Function, start};
use crate::cuda::Launch;

/// Graphs that are kept, and lists that are remembered until they come again.
const MOST_GRAPHS: usize = 128;
const MOST_SEEN: usize = 256;
/// A graph of fewer launches is not worth its capture.
const FEWEST_LAUNCHES: usize = 8;

#[derive(Debug)]
pub(crate) struct Graphs {
    is_enabled: bool,
    /// The one used last at the end.
    captured: Vec<Captured>,
    /// Digests of lists that came once.
    seen: Vec<u64>,
}

#[derive(Debug)]
struct Captured {
    digest: u64,
    launches: Vec<Launch>,
    graph: Graph,
}

impl Graphs {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            captured: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Starts the launches as a graph if they have come before; false: they are to be started one
    /// by one.
    pub(crate) fn run(
        &mut self,
        driver: &Arc<Driver>,
        launches: &[Launch],
        functions: &[Function],
    ) -> Result<bool, String> {
        if !self.is_enabled || launches.len() < FEWEST_LAUNCHES {
            return Ok(false);
        }
        let digest = digest(launches);
        let same = |own: &Captured| own.digest == digest && own.launches == launches;
        let captured = match self.captured.iter().position(same) {
            Some(known) => self.captured.remove(known),
            None => {
                let Some(seen) = self.seen.iter().position(|own| *own == digest) else {
                    self.remember(digest);
                    return Ok(false);
                };
                let graph = Graph::capture(driver, launches, functions)
                    .map_err(|error| format!("capturing a step: {}", text(error)))?;
                self.seen.remove(seen);
                Captured {
                    digest,
                    launches: launches.to_vec(),
                    graph,
                }
            }
        };
        let launched = captured.graph.launch();
        if self.captured.len() >= MOST_GRAPHS {
            self.captured.remove(0);
        }
        self.captured.push(captured);
        launched.map_err(|error| format!("starting a captured step: {}", text(error)))?;
        Ok(true)
    }

    fn remember(&mut self, digest: u64) {
        if self.seen.len() >= MOST_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(digest);
    }
}

fn digest(launches: &[Launch]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for launch in launches {
        launch.kernel.hash(&mut hasher);
        launch.grid.hash(&mut hasher);
        launch.params.bytes().hash(&mut hasher);
    }
    hasher.finish()
}

/// An instantiated graph.
#[derive(Debug)]
struct Graph {
    driver: Arc<Driver>,
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

// SAFETY: handles of the driver's that any thread may use, one at a time: `Graph` is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    fn capture(
        driver: &Arc<Driver>,
        launches: &[Launch],
        functions: &[Function],
    ) -> Result<Self, DriverError> {
        let stream = driver.steps();
        // What other threads do (loading weights) is none of this capture's business.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives, and nothing else is given to it until the capture ends.
        unsafe { result::stream::begin_capture(stream, mode) }?;
        let started = launches.iter().zip(functions).try_for_each(|(launch, f)| {
            // SAFETY: as for an eager start; a graph is launched only for the very same list,
            // whose buffers are alive then.
            unsafe { start(*f, launch, stream) }
        });
        // SAFETY: begun above.
        let graph = unsafe { result::stream::end_capture(stream) };
        started?;
        let graph = graph?;
        // SAFETY: just captured.
        let exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        match exec {
            Ok(exec) => Ok(Self {
                driver: driver.clone(),
                graph,
                exec,
            }),
            Err(error) => {
                // SAFETY: nobody else has it.
                unsafe { result::graph::destroy(graph) }?;
                Err(error)
            }
        }
    }

    fn launch(&self) -> Result<(), DriverError> {
        // SAFETY: instantiated for this stream's context, and alive.
        unsafe { result::graph::launch(self.exec, self.driver.steps()) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.driver.bind().is_ok() {
            // SAFETY: nobody else has them; the driver waits for a launch that is under way.
            // Failures mean that the context is lost.
            unsafe { result::graph::exec_destroy(self.exec) }.ok();
            // SAFETY: as above.
            unsafe { result::graph::destroy(self.graph) }.ok();
        }
    }
}
