//! Capture of streams, and graphs.

use std::ffi::{c_int, c_uint, c_ulonglong};

use super::{Code, Handle, call, put, stream};
use crate::capture::{Capture, Graph};
use crate::command::Command;
use crate::error::Error;
use crate::report::append;

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(handle: Handle, _mode: c_int) -> Code {
    call(|driver| {
        if handle <= 2 {
            driver.complain("a default stream cannot be captured");
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let number = driver.handle();
        let found = driver
            .streams
            .get_mut(&handle)
            .ok_or(Error::INVALID_HANDLE)?;
        if found.capture.is_some() {
            return Err(Error::ILLEGAL_STATE);
        }
        found.capture = Some(number);
        let capture = Capture {
            origin: handle,
            commands: Vec::new(),
            broken: false,
        };
        driver.captures.insert(number, capture);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(handle: Handle, to: *mut Handle) -> Code {
    call(|driver| {
        let found = driver.streams.get(&handle).ok_or(Error::INVALID_HANDLE)?;
        let number = found.capture.ok_or(Error::ILLEGAL_STATE)?;
        let capture = driver
            .captures
            .remove(&number)
            .ok_or(Error::ILLEGAL_STATE)?;
        for stream in driver.streams.values_mut() {
            if stream.capture == Some(number) {
                stream.capture = None;
            }
        }
        if capture.broken || capture.origin != handle {
            put(to, 0)?;
            return Err(Error::STREAM_CAPTURE_INVALIDATED);
        }
        let graph = driver.handle();
        let commands = capture.commands;
        driver.graphs.insert(graph, Graph { commands });
        put(to, graph)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(handle: Handle, to: *mut c_int) -> Code {
    call(|driver| {
        let found = driver
            .streams
            .get(&stream(handle)?)
            .ok_or(Error::INVALID_HANDLE)?;
        let broken = |number| {
            driver
                .captures
                .get(&number)
                .is_none_or(|capture| capture.broken)
        };
        put(
            to,
            match found.capture {
                None => 0,
                Some(number) if broken(number) => 2,
                Some(_) => 1,
            },
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(
    to: *mut Handle,
    graph: Handle,
    _flags: c_ulonglong,
) -> Code {
    call(|driver| {
        let graph = driver
            .graphs
            .get(&graph)
            .ok_or(Error::INVALID_HANDLE)?
            .clone();
        let handle = driver.handle();
        driver.graphs.insert(handle, graph);
        put(to, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(graph: Handle, _stream: Handle) -> Code {
    call(|driver| {
        let found = driver.graphs.get(&graph);
        found.map(|_| ()).ok_or(Error::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(graph: Handle, handle: Handle) -> Code {
    call(|driver| {
        let stream = stream(handle)?;
        let graph = driver.graphs.get(&graph).ok_or(Error::INVALID_HANDLE)?;
        let commands = graph.commands.clone();
        if let Some(trace) = &driver.settings.trace {
            append(trace, &format!("graph of {} commands", commands.len()));
        }
        let found = driver.streams.get(&stream).ok_or(Error::INVALID_HANDLE)?;
        let device = found.device;
        for command in &commands {
            if let Command::Launch { function, .. } = command {
                driver.control.launch(&function.name, device, false)?;
            }
        }
        commands
            .into_iter()
            .try_for_each(|command| driver.enqueue(stream, command))
    })
}

fn destroy(graph: Handle) -> Code {
    call(|driver| {
        let found = driver.graphs.remove(&graph);
        found.map(|_| ()).ok_or(Error::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> Code {
    destroy(graph)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(graph: Handle) -> Code {
    destroy(graph)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: Handle, _nodes: *mut Handle, n: *mut usize) -> Code {
    call(|driver| {
        let found = driver.graphs.get(&graph).ok_or(Error::INVALID_HANDLE)?;
        put(n, found.commands.len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(handle: Handle, to: *mut c_uint) -> Code {
    call(|driver| {
        driver
            .streams
            .get(&stream(handle)?)
            .ok_or(Error::INVALID_HANDLE)?;
        // Streams other than the default ones do not wait for those.
        put(to, u32::from(handle > 2))
    })
}
