//! The body of a kernel: registers, variables, labels and statements. Names of inner scopes
//! (inline assembly) are made unique, so that later stages know no scopes.

use std::collections::HashMap;

use super::operand::Operand;
use super::scanner::{Item, Scanner};
use super::variable::Variable;
use crate::fault::PtxError;
use crate::types::Type;

/// Where in the source an instruction comes from: file numbers and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) at: (u32, u32),
    /// Where the function that holds it was inlined.
    pub(crate) inlined_at: Option<(u32, u32)>,
}

impl Source {
    /// Reads `.loc file line column {, function_name label, inlined_at file line column}`.
    fn parse(text: &str) -> Option<Self> {
        let pair = |text: &str| {
            let mut words = text.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let inlined_at = text.split_once("inlined_at").and_then(|(_, at)| pair(at));
        let at = pair(text.strip_prefix(".loc")?)?;
        Some(Self { at, inlined_at })
    }

    /// Follows calls within inlined functions to the kernel's own line: the places that
    /// directives before this one named were inlined themselves.
    fn outermost(mut self, callers: &mut HashMap<(u32, u32), (u32, u32)>) -> Self {
        if let Some(caller) = self.inlined_at {
            callers.insert(self.at, caller);
        } else {
            callers.remove(&self.at);
        }
        for _ in 0..callers.len() {
            match self.inlined_at.and_then(|at| callers.get(&at)) {
                Some(caller) => self.inlined_at = Some(*caller),
                None => break,
            }
        }
        self
    }
}

/// One instruction as written.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The guarding predicate, and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    /// The opcode with its modifiers.
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
    pub(crate) line: u32,
    pub(crate) source: Option<Source>,
    scope: usize,
}

/// A kernel's body.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) statements: Vec<Statement>,
    /// Registers by name; those declared as `%r<10>` by the prefix, with their number.
    pub(crate) registers: HashMap<String, (Type, Option<u32>)>,
    pub(crate) variables: Vec<Variable>,
    /// Labels by scope and name: the index of the statement behind.
    labels: HashMap<(usize, String), usize>,
    /// Lists of branch targets.
    tables: HashMap<String, Vec<String>>,
    /// Each scope's parent; scope 0 is the body.
    parents: Vec<usize>,
    /// Names declared in inner scopes.
    inner: HashMap<(usize, String), String>,
}

impl Body {
    /// Parses from behind the opening brace to behind the closing one.
    pub(super) fn parse(scanner: &mut Scanner) -> Result<Self, PtxError> {
        let mut body = Self {
            parents: vec![0],
            ..Self::default()
        };
        let (mut scope, mut source) = (0, None);
        let (mut label, mut callers) = (None, HashMap::new());
        while let Some((item, line)) = scanner.next()? {
            match item {
                Item::Open => {
                    body.parents.push(scope);
                    scope = body.parents.len() - 1;
                }
                Item::Close if scope == 0 => return Ok(body),
                Item::Close => scope = body.parents[scope],
                Item::Label(name) => {
                    label = Some(name.clone());
                    let key = (scope, name);
                    body.labels.insert(key, body.statements.len());
                }
                Item::Directive(text) if text.starts_with(".loc ") => {
                    source = Source::parse(&text).map(|found| found.outermost(&mut callers));
                }
                Item::Directive(text) => body.declare(&text, scope, label.take(), line)?,
                Item::Statement(text) => {
                    let statement = body.statement(&text, scope, line, source)?;
                    body.statements.push(statement);
                }
            }
        }
        Err(PtxError::new(0, "the text ends within a kernel"))
    }

    fn declare(
        &mut self,
        text: &str,
        scope: usize,
        label: Option<String>,
        line: u32,
    ) -> Result<(), PtxError> {
        if text.starts_with(".pragma") {
            return Ok(());
        }
        if let Some(targets) = text.strip_prefix(".branchtargets") {
            let targets = targets.split(',').map(|t| t.trim().to_owned()).collect();
            let label = label.ok_or_else(|| PtxError::new(line, "branch targets with no label"))?;
            self.tables.insert(label, targets);
            return Ok(());
        }
        if let Some(registers) = text.strip_prefix(".reg") {
            return self.declare_registers(registers, scope, line);
        }
        match Variable::parse(text, line)? {
            Some(variable) => {
                self.variables.push(variable);
                Ok(())
            }
            None => Err(PtxError::new(line, format!("directive `{text}`"))),
        }
    }

    fn declare_registers(&mut self, text: &str, scope: usize, line: u32) -> Result<(), PtxError> {
        let wrong = || PtxError::new(line, format!("register declaration `{text}`"));
        let (ty, names) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let ty = ty
            .strip_prefix('.')
            .and_then(Type::parse)
            .ok_or_else(wrong)?;
        for name in names.split(',') {
            let (name, n) = match name.trim().split_once('<') {
                Some((name, n)) => {
                    let n = n.trim_end_matches('>').parse().map_err(|_| wrong())?;
                    (name.to_owned(), Some(n))
                }
                None => (name.trim().to_owned(), None),
            };
            let unique = if scope == 0 {
                name
            } else {
                let unique = format!("{name}@{scope}");
                self.inner.insert((scope, name), unique.clone());
                unique
            };
            self.registers.insert(unique, (ty, n));
        }
        Ok(())
    }

    /// The unique name of what `name` means in `scope`.
    fn resolve(&self, name: &mut String, mut scope: usize) {
        while scope != 0 {
            let key = (scope, std::mem::take(name));
            if let Some(unique) = self.inner.get(&key) {
                unique.clone_into(name);
                return;
            }
            *name = key.1;
            scope = self.parents[scope];
        }
    }

    fn statement(
        &self,
        text: &str,
        scope: usize,
        line: u32,
        source: Option<Source>,
    ) -> Result<Statement, PtxError> {
        let (guard, rest) = match text.strip_prefix('@') {
            Some(rest) => {
                let (name, rest) = rest
                    .trim_start()
                    .split_once(' ')
                    .ok_or_else(|| PtxError::new(line, "a guard without instruction"))?;
                let negated = name.starts_with('!');
                let mut name = name.trim_start_matches('!').to_owned();
                self.resolve(&mut name, scope);
                (Some((name, negated)), rest.trim())
            }
            None => (None, text),
        };
        let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        if opcode.starts_with("call") {
            let what = format!("`{rest}`: calls are not simulated; let the compiler inline");
            return Err(PtxError::new(line, what));
        }
        let mut operands = Operand::list(operands, line)?;
        for operand in &mut operands {
            operand.names(&mut |name| self.resolve(name, scope));
        }
        Ok(Statement {
            guard,
            opcode: opcode.to_owned(),
            operands,
            line,
            source,
            scope,
        })
    }

    /// Where the label `name`, as seen from `statement`, leads.
    pub(crate) fn label(&self, statement: &Statement, name: &str) -> Result<u32, PtxError> {
        let mut scope = statement.scope;
        loop {
            if let Some(at) = self.labels.get(&(scope, name.to_owned())) {
                return Ok(*at as u32);
            }
            if scope == 0 {
                let what = format!("no label `{name}`");
                return Err(PtxError::new(statement.line, what));
            }
            scope = self.parents[scope];
        }
    }

    /// Where the entries of the branch table `name` lead.
    pub(crate) fn table(&self, statement: &Statement, name: &str) -> Result<Vec<u32>, PtxError> {
        let Some(targets) = self.tables.get(name) else {
            let what = format!("no branch targets `{name}`");
            return Err(PtxError::new(statement.line, what));
        };
        let targets = targets.iter().map(|target| self.label(statement, target));
        targets.collect()
    }
}
