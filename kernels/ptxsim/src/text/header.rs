//! A whole text: its version, files, module variables and kernels.

use std::collections::HashMap;

use super::body::Body;
use super::scanner::{Item, Scanner};
use super::variable::Variable;
use crate::fault::{PtxError, Space};

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// One `.entry`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    /// Most threads of a block by `.maxntid` or `.reqntid`.
    pub(crate) max_threads: Option<u32>,
    pub(crate) body: Body,
}

/// A PTX text.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) target: String,
    /// Source files by number.
    pub(crate) files: HashMap<u32, String>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) entries: Vec<Entry>,
}

const VERSIONS: std::ops::RangeInclusive<u32> = 70..=99;

fn check_version(text: &str, line: u32) -> Result<(), PtxError> {
    let number = text.trim_start_matches(".version").trim();
    let known = number
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)))
        .is_some_and(|(major, minor)| minor < 10 && VERSIONS.contains(&(major * 10 + minor)));
    if known {
        return Ok(());
    }
    let what = format!("PTX version `{number}`; 7.0 to 9.9 are read");
    Err(PtxError::new(line, what))
}

fn params(text: &str, line: u32) -> Result<Vec<Param>, PtxError> {
    let (mut params, mut end) = (Vec::new(), 0usize);
    for declaration in text.split(',').filter(|d| !d.trim().is_empty()) {
        let wrong = || PtxError::new(line, format!("parameter `{declaration}`"));
        // `.ptr .global .align 1` says where a pointer leads, not what the parameter is.
        let declaration = match declaration.split_once(".ptr") {
            Some((head, tail)) => {
                let name = tail.split_whitespace().last().ok_or_else(wrong)?;
                format!("{head} {name}")
            }
            None => declaration.to_owned(),
        };
        let variable = Variable::parse(declaration.trim(), line)?.ok_or_else(wrong)?;
        if variable.space != Space::Param {
            return Err(wrong());
        }
        let bytes = variable.bytes.ok_or_else(wrong)?;
        let offset = end.next_multiple_of(variable.align);
        end = offset + bytes;
        params.push(Param {
            name: variable.name,
            offset,
            bytes,
        });
    }
    Ok(params)
}

fn max_threads(tail: &str) -> Option<u32> {
    let limits = tail
        .split_once(".maxntid")
        .or(tail.split_once(".reqntid"))?
        .1;
    let limits = limits.split('.').next().unwrap_or_default();
    limits
        .split(',')
        .map(|n| n.trim().parse::<u32>().ok())
        .product()
}

fn entry(text: &str, line: u32, scanner: &mut Scanner) -> Result<Option<Entry>, PtxError> {
    if let Some((Item::Open, _)) = scanner.next()? {
    } else {
        return Err(PtxError::new(line, "a function without a body"));
    }
    let body = Body::parse(scanner)?;
    let Some((_, rest)) = text.split_once(".entry") else {
        // A function: calls to it are refused, so nothing can reach it.
        return Ok(None);
    };
    let (name, rest) = rest.split_once('(').unwrap_or((rest, ")"));
    let (list, tail) = rest.split_once(')').unwrap_or((rest, ""));
    Ok(Some(Entry {
        name: name.trim().to_owned(),
        params: params(list, line)?,
        max_threads: max_threads(tail),
        body,
    }))
}

/// Parses a PTX text.
pub(crate) fn parse(text: &str) -> Result<Unit, PtxError> {
    let mut scanner = Scanner::new(text);
    let mut unit = Unit::default();
    while let Some((item, line)) = scanner.next()? {
        let Item::Directive(text) = item else {
            return Err(PtxError::new(line, format!("{item:?} outside of a kernel")));
        };
        if text.starts_with(".version") {
            check_version(&text, line)?;
        } else if let Some(target) = text.strip_prefix(".target") {
            target.trim().clone_into(&mut unit.target);
        } else if let Some(file) = text.strip_prefix(".file") {
            if let Some((number, path)) = file.trim().split_once(' ')
                && let Ok(number) = number.parse()
            {
                let path = path.split('"').nth(1).unwrap_or_default();
                unit.files.insert(number, path.to_owned());
            }
        } else if text.starts_with(".address_size") {
            if !text.ends_with("64") {
                return Err(PtxError::new(line, "only 64-bit addresses are simulated"));
            }
        } else if text.contains(".entry") || text.contains(".func") {
            unit.entries.extend(entry(&text, line, &mut scanner)?);
        } else if text.starts_with(".pragma") {
        } else if let Some(variable) = Variable::parse(&text, line)? {
            unit.variables.push(variable);
        } else {
            return Err(PtxError::new(line, format!("directive `{text}`")));
        }
    }
    Ok(unit)
}
