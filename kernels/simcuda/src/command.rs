//! What waits in streams and graphs.

use std::ffi::c_void;
use std::sync::Arc;

use ptxsim::{Kernel, Launch, Module};

use crate::clique::Gather;
use crate::error::Error;

/// A kernel of a loaded module.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) module: Arc<Module>,
    pub(crate) name: String,
    /// Dynamic shared memory that launches may ask for, in bytes.
    pub(crate) max_dynamic_shared: usize,
}

impl Function {
    pub(crate) fn kernel(&self) -> Result<&Kernel, Error> {
        self.module.kernel(&self.name).ok_or(Error::NOT_FOUND)
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host(usize),
    Device(u64),
}

/// A function of the host that a stream calls, and its argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCall {
    pub(crate) function: extern "C" fn(*mut c_void),
    pub(crate) argument: usize,
}

/// A command of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Launch {
        function: Function,
        launch: Launch,
        params: Vec<u8>,
    },
    Copy {
        to: Place,
        from: Place,
        len: usize,
    },
    /// A copy from pageable host memory, which was read when the command was given.
    Write {
        to: u64,
        bytes: Vec<u8>,
    },
    /// Repeats a pattern of 1, 2 or 4 bytes.
    Fill {
        to: u64,
        pattern: Vec<u8>,
        n: usize,
    },
    Free(u64),
    /// Marks that an event's nth record was reached.
    Record {
        event: usize,
        nth: u64,
    },
    /// Waits for an event's nth record.
    Wait {
        event: usize,
        nth: u64,
    },
    Host(HostCall),
    /// Gathers what all ranks of a clique have.
    Gather(Gather),
}
