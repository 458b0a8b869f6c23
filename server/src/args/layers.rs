//! Where settings come from: flags go before variables of the environment, those before a file,
//! and the file before defaults.
//!
//! What a file says is turned into words of a command line, behind those that were typed, so that
//! it is read, checked and refused like them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::variables;

/// Commands with the settings of a server.
pub(super) const WITH_SETTINGS: [&str; 3] = ["serve", "config", "doctor"];
/// Words of these commands that are no settings.
const NO_SETTINGS: [&str; 4] = ["help", "version", "explain", "config"];
pub(super) const PREFIX: &str = "UNDERSTUDY_";

/// A setting, its values, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub name: String,
    /// Empty: not set. Keys are not shown.
    pub values: Vec<String>,
    pub is_flag: bool,
    pub is_list: bool,
    pub is_secret: bool,
    pub origin: Origin,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

/// The variable of a setting. Kubernetes gives `UNDERSTUDY_PORT` to pods that live beside a
/// service of that name, so the port has another.
fn variable(arg: &Arg) -> Option<String> {
    let name = setting(arg)?;
    let name = if name == "port" { "http-port" } else { name };
    Some(format!("{PREFIX}{}", name.to_uppercase().replace('-', "_")))
}

/// What a file calls it.
fn setting(arg: &Arg) -> Option<&str> {
    let id = arg.get_id().as_str();
    // --model is repeated for each of several models; `model` is the one that stands alone.
    let name = if id == "models" {
        id
    } else {
        arg.get_long().unwrap_or(id)
    };
    let is_setting = !NO_SETTINGS.contains(&name) || name == "config";
    is_setting.then_some(name)
}

/// The command line with a variable for each setting.
pub(super) fn with_variables(command: Command) -> Command {
    WITH_SETTINGS.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            command.mut_args(|arg| match variable(&arg) {
                Some(variable) if arg.get_env().is_none() => {
                    arg.env(OsStr::from(variable)).hide_env(true)
                }
                _ => arg,
            })
        })
    })
}

/// A command line whose file of settings has been read.
pub(super) struct Layered {
    pub(super) matches: ArgMatches,
    pub(super) told: Vec<Told>,
}

/// Reads `words`, which begin with the program and a command.
pub(super) fn read(command: &Command, words: &[OsString]) -> Result<Layered, clap::Error> {
    let matches = command.clone().try_get_matches_from(words);
    let matches = matches.map_err(|error| variables::named(command, words, error))?;
    let Some((name, given)) = matches.subcommand() else {
        return Ok(Layered {
            matches,
            told: Vec::new(),
        });
    };
    if !WITH_SETTINGS.contains(&name) {
        return Ok(Layered {
            matches,
            told: Vec::new(),
        });
    }
    let settings = command.find_subcommand(name).expect("it was matched");
    let Some(path) = given.get_one::<PathBuf>("config").cloned() else {
        let told = tell(settings, given, &[], Path::new(""));
        return Ok(Layered { matches, told });
    };
    let refuse = |message: String| {
        // Without clap's words on usage: the command line was right.
        let message = format!("--config {}: {message}\n", path.display());
        clap::Error::raw(ErrorKind::ValueValidation, message)
    };
    let (more, names) = words_of_file(settings, given, &path).map_err(refuse)?;
    let (head, rest) = words.split_at(2);
    let words = [head, &more, rest].concat();
    let matches = command
        .clone()
        .try_get_matches_from(words)
        .map_err(|error| {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            refuse(text.lines().next().unwrap_or_default().to_owned())
        })?;
    let (_, merged) = matches.subcommand().expect("there was one before");
    let told = tell(settings, merged, &names, &path);
    Ok(Layered { matches, told })
}

/// The words that a file adds, and the settings that it gives.
fn words_of_file(
    settings: &Command,
    given: &ArgMatches,
    path: &Path,
) -> Result<(Vec<OsString>, Vec<String>), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: Table = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
    let (mut words, mut names) = (Vec::new(), Vec::new());
    for (key, value) in table {
        let is_named =
            |arg: &&Arg| setting(arg).is_some_and(|name| name == key && name != "config");
        let arg = settings.get_arguments().find(is_named);
        let arg = arg.ok_or_else(|| format!("there is no setting `{key}`"))?;
        let values = values(arg, &key, &value)?;
        let source = given.value_source(arg.get_id().as_str());
        if matches!(
            source,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        for value in values {
            let word = match (arg.get_long(), &value) {
                (None, Some(value)) => value.clone(),
                (_, None) => format!("--{key}"),
                (Some(long), Some(value)) => format!("--{long}={value}"),
            };
            words.push(OsString::from(word));
        }
        names.push(key);
    }
    // MODEL stands for itself and must not follow a flag that takes several words.
    words.sort_by_key(|word| word.to_string_lossy().starts_with("--"));
    Ok((words, names))
}

/// The values of a setting; `None` is a flag that is set.
fn values(arg: &Arg, key: &str, value: &Value) -> Result<Vec<Option<String>>, String> {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    match value {
        Value::Boolean(is_set) if is_flag => Ok(if *is_set { vec![None] } else { Vec::new() }),
        _ if is_flag => Err(format!("`{key}` is true or false")),
        Value::Array(items) if is_list => items
            .iter()
            .map(|item| {
                let text = scalar(item);
                text.map(Some)
                    .ok_or_else(|| format!("`{key}` is a list of strings"))
            })
            .collect(),
        Value::Table(pairs) if is_list => pairs
            .iter()
            .map(|(name, item)| {
                let text = scalar(item).ok_or_else(|| format!("`{key}.{name}` is a string"))?;
                Ok(Some(format!("{name}={text}")))
            })
            .collect(),
        _ => {
            let text = scalar(value);
            let text = text.ok_or_else(|| format!("`{key}` is one string or number"))?;
            Ok(vec![Some(text)])
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(x) => Some(x.to_string()),
        _ => None,
    }
}

/// All settings as they are.
fn tell(settings: &Command, matches: &ArgMatches, of_file: &[String], path: &Path) -> Vec<Told> {
    let mut told = Vec::new();
    for arg in settings.get_arguments() {
        let Some(name) = setting(arg) else {
            continue;
        };
        let id = arg.get_id().as_str();
        let values = matches.get_raw(id).into_iter().flatten();
        let values = values.map(|value| value.to_string_lossy().into_owned());
        let origin = match matches.value_source(id) {
            Some(_) if of_file.iter().any(|known| known == name) => Origin::File(path.to_owned()),
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => {
                let known = arg
                    .get_env()
                    .map(|name| name.to_string_lossy().into_owned());
                Origin::Variable(known.unwrap_or_default())
            }
            _ => Origin::Default,
        };
        told.push(Told {
            name: name.to_owned(),
            values: values.collect(),
            is_flag: matches!(arg.get_action(), ArgAction::SetTrue),
            is_list: matches!(arg.get_action(), ArgAction::Append),
            is_secret: matches!(name, "api-key" | "admin-key"),
            origin,
        });
    }
    told
}
