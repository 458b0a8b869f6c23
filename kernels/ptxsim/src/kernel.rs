//! Modules and kernels, ready to run.

use std::collections::HashMap;
use std::sync::Arc;

use crate::code::Instruction;
use crate::decode::{self, Layout, Symbols};
use crate::fault::{Fault, FaultKind, PtxError, Space};
use crate::memory::Memory;
use crate::run::{self, Launch, Report, SharedPlan};
use crate::text::{self, Param, Unit, Variable};

/// A parsed PTX text.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    target: String,
}

/// One kernel of a module.
#[derive(Debug)]
pub struct Kernel {
    name: String,
    params: Vec<Param>,
    files: Arc<HashMap<u32, String>>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) layout: Layout,
    pub(crate) shared: SharedPlan,
    pub(crate) local_bytes: usize,
    pub(crate) module: Arc<Vec<u8>>,
    pub(crate) max_threads: Option<u32>,
}

/// An argument of a launch: the bytes of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg(Vec<u8>);

macro_rules! arg {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Arg {
            fn from(value: $ty) -> Self {
                Self(value.to_le_bytes().to_vec())
            }
        }
    )*};
}
arg!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl From<Vec<u8>> for Arg {
    /// The bytes of a struct.
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// Adds a variable's place to the end of a space and returns it.
fn place(end: &mut usize, variable: &Variable, bytes: usize) -> usize {
    let at = end.next_multiple_of(variable.align.max(1));
    *end = at + bytes;
    at
}

impl Module {
    /// Parses and decodes a PTX text.
    ///
    /// # Errors
    /// Broken text, and instructions, modifiers and types that are not simulated, by name.
    pub fn parse(text: &str) -> Result<Self, PtxError> {
        let unit = text::parse(text)?;
        let (mut bytes, mut symbols) = (Vec::new(), Symbols::new());
        for variable in &unit.variables {
            if variable.space != Space::Module {
                continue;
            }
            let mut end = bytes.len();
            let at = place(&mut end, variable, variable.bytes.unwrap_or(0));
            bytes.resize(at, 0);
            bytes.extend(variable.init.clone().unwrap_or_default());
            bytes.resize(end, 0);
            let at = at as u64;
            symbols.insert(variable.name.clone(), (Space::Module, at));
        }
        let (files, bytes) = (Arc::new(unit.files.clone()), Arc::new(bytes));
        let mut kernels = Vec::new();
        for idx in 0..unit.entries.len() {
            kernels.push(Kernel::decode(&unit, idx, symbols.clone(), &files, &bytes)?);
        }
        let target = unit.target;
        Ok(Self { kernels, target })
    }

    /// The kernel of that name.
    #[must_use]
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// All kernels, in the order of the text.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The `.target` of the text, such as `sm_80`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl Kernel {
    fn decode(
        unit: &Unit,
        idx: usize,
        mut symbols: Symbols,
        files: &Arc<HashMap<u32, String>>,
        module: &Arc<Vec<u8>>,
    ) -> Result<Self, PtxError> {
        let entry = &unit.entries[idx];
        let mut named = std::collections::HashSet::new();
        for statement in &entry.body.statements {
            for operand in &statement.operands {
                operand.clone().names(&mut |name| {
                    named.insert(name.clone());
                });
            }
        }
        let of_module = unit
            .variables
            .iter()
            .filter(|variable| named.contains(&variable.name));
        let variables: Vec<&Variable> = of_module.chain(&entry.body.variables).collect();
        let shared = plan_shared(&variables, &mut symbols);
        let mut local_bytes = 0;
        for variable in variables
            .iter()
            .filter(|variable| variable.space == Space::Local)
        {
            let at = place(&mut local_bytes, variable, variable.bytes.unwrap_or(0));
            symbols.insert(variable.name.clone(), (Space::Local, at as u64));
        }
        for param in &entry.params {
            symbols.insert(param.name.clone(), (Space::Param, param.offset as u64));
        }
        let (code, layout) = decode::decode(&entry.body, &symbols)?;
        Ok(Self {
            name: entry.name.clone(),
            params: entry.params.clone(),
            files: Arc::clone(files),
            code,
            layout,
            shared,
            local_bytes,
            module: Arc::clone(module),
            max_threads: entry.max_threads,
        })
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sizes of its parameters in bytes.
    pub fn param_bytes(&self) -> impl Iterator<Item = usize> {
        self.params.iter().map(|param| param.bytes)
    }

    /// Offset and size of a parameter in the buffer that a launch gives.
    #[must_use]
    pub fn param_at(&self, idx: usize) -> Option<(usize, usize)> {
        let param = self.params.get(idx)?;
        Some((param.offset, param.bytes))
    }

    /// Bytes of static shared memory.
    #[must_use]
    pub fn static_shared(&self) -> usize {
        self.shared.static_bytes
    }

    /// Bytes of local memory of a thread.
    #[must_use]
    pub fn local_bytes(&self) -> usize {
        self.local_bytes
    }

    /// Most threads of a block, if the text bounds them.
    #[must_use]
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    pub(crate) fn file(&self, number: u32) -> String {
        let path = self.files.get(&number).map_or("?", String::as_str);
        path.rsplit('/').next().unwrap_or(path).to_owned()
    }

    /// A fault before any instruction ran.
    pub(crate) fn refuse(&self, kind: FaultKind) -> Box<Fault> {
        Box::new(Fault {
            kernel: self.name.clone(),
            line: 0,
            source_line: None,
            inlined_line: None,
            instruction: String::new(),
            block: [0; 3],
            thread: None,
            kind,
        })
    }

    /// Lays arguments out as the kernel expects its parameters.
    fn pack(&self, args: &[Arg]) -> Result<Vec<u8>, Box<Fault>> {
        let wrong = |what: String| self.refuse(FaultKind::Launch { what });
        if args.len() != self.params.len() {
            let (given, expected) = (args.len(), self.params.len());
            return Err(wrong(format!(
                "{given} arguments for {expected} parameters"
            )));
        }
        let mut buffer = Vec::new();
        for (idx, (arg, param)) in args.iter().zip(&self.params).enumerate() {
            if arg.0.len() != param.bytes {
                let (given, expected) = (arg.0.len(), param.bytes);
                return Err(wrong(format!(
                    "argument {idx} has {given} bytes, the parameter {expected}"
                )));
            }
            buffer.resize(param.offset, 0);
            buffer.extend_from_slice(&arg.0);
        }
        Ok(buffer)
    }

    /// Runs the kernel with typed arguments.
    ///
    /// # Errors
    /// Arguments that do not fit, a launch that the device would refuse, and whatever a thread
    /// does that it must not do.
    pub fn launch(
        &self,
        launch: &Launch,
        args: &[Arg],
        memory: &Memory,
    ) -> Result<Report, Box<Fault>> {
        let params = self.pack(args)?;
        run::run(self, launch, &params, memory)
    }

    /// Runs the kernel with a packed parameter buffer.
    ///
    /// # Errors
    /// As [`Kernel::launch`].
    pub fn launch_packed(
        &self,
        launch: &Launch,
        params: &[u8],
        memory: &Memory,
    ) -> Result<Report, Box<Fault>> {
        run::run(self, launch, params, memory)
    }
}

/// Gives shared variables their addresses: static ones with guards between them, then dynamic.
fn plan_shared(variables: &[&Variable], symbols: &mut Symbols) -> SharedPlan {
    let (mut end, mut plan) = (0, SharedPlan::default());
    let shared = || {
        variables
            .iter()
            .filter(|variable| variable.space == Space::Shared)
    };
    for variable in shared() {
        let Some(bytes) = variable.bytes else {
            continue;
        };
        let at = place(&mut end, variable, bytes);
        end = (end + run::GUARD).next_multiple_of(run::GUARD);
        plan.static_bytes = plan.static_bytes.next_multiple_of(variable.align) + bytes;
        plan.variables.push((variable.name.clone(), at, bytes));
        symbols.insert(variable.name.clone(), (Space::Shared, at as u64));
    }
    let align = shared().map(|variable| variable.align).max().unwrap_or(1);
    plan.dynamic_at = end.next_multiple_of(align.max(run::GUARD));
    for variable in shared().filter(|variable| variable.bytes.is_none()) {
        symbols.insert(
            variable.name.clone(),
            (Space::Shared, plan.dynamic_at as u64),
        );
    }
    plan
}
