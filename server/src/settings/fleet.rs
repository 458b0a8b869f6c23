//! Several models: `--model NAME=PATH`, and whose adapters are whose.

use std::path::PathBuf;

use super::{SettingsError, adapters, pairs};
use crate::adapters::AdapterOptions;
use crate::aliases::Alias;
use crate::args::ServeArgs;
use crate::plan::available_bytes;

/// Models beside the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    pub models: Vec<FleetModel>,
    /// Memory for all models, the first among them.
    pub budget_bytes: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetModel {
    pub name: String,
    /// As MODEL of the command line.
    pub path: String,
    pub adapters: Vec<(String, PathBuf)>,
}

impl FleetSettings {
    /// The model that a name belongs to, by its number; `None`: the first.
    fn model_of(&self, name: &str) -> Option<usize> {
        self.models.iter().position(|model| {
            let rest = name.strip_prefix(model.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    }

    /// Refuses shadows of another model: they are sent the tokens of the original.
    pub(super) fn check_shadows(&self, aliases: &[Alias]) -> Result<(), SettingsError> {
        for alias in aliases.iter().filter(|alias| alias.has_shadows()) {
            let mut models = alias.targets().map(|target| self.model_of(target));
            let first = models.next();
            if models.any(|model| Some(model) != first) {
                return Err(SettingsError::Shadow {
                    alias: alias.name.clone(),
                });
            }
        }
        Ok(())
    }
}

/// A name, if it has one, and a path.
pub(super) type Named = (Option<String>, String);

/// What `--model` names: names, if they have any, and paths. `None`: it was not given. A single
/// one needs no name.
pub(super) fn models(args: &ServeArgs) -> Result<Option<Vec<Named>>, SettingsError> {
    let values = &args.models;
    if values.is_empty() {
        return Ok(None);
    }
    if !args.served_model_name.is_empty() {
        let flag = "served-model-name";
        return Err(SettingsError::OneModel { flag });
    }
    let mut models: Vec<Named> = Vec::with_capacity(values.len());
    for value in values {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/:@+\"\\".contains(c);
        let named = value
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty() && !name.contains(odd));
        match named {
            Some((name, path)) => {
                let name = name.to_owned();
                if models.iter().any(|(own, _)| own.as_ref() == Some(&name)) {
                    return Err(SettingsError::Twice {
                        flag: "model",
                        name,
                    });
                }
                models.push((Some(name), path.to_owned()));
            }
            None if values.len() == 1 => models.push((None, value.clone())),
            None => {
                let value = value.clone();
                return Err(SettingsError::Model { value });
            }
        }
    }
    Ok(Some(models))
}

/// Adapters of the first model, and the other models with theirs.
pub(super) fn with_adapters(
    named: Option<&[Named]>,
    args: &ServeArgs,
) -> Result<(AdapterOptions, FleetSettings), SettingsError> {
    let mut models = named.unwrap_or_default().iter();
    let first = models.next().and_then(|(name, _)| name.clone());
    let mut fleet = FleetSettings {
        models: models
            .map(|(name, path)| FleetModel {
                name: name.clone().unwrap_or_default(),
                path: path.clone(),
                adapters: Vec::new(),
            })
            .collect(),
        budget_bytes: args
            .model_memory
            .unwrap_or_else(|| available_bytes() / 10 * 9),
    };
    let mut own = Vec::new();
    for (name, path) in pairs("adapter", &args.adapter)? {
        let Some((model, adapter)) = name.split_once(':').filter(|_| named.is_some()) else {
            own.push((name, path));
            continue;
        };
        if first.as_deref() == Some(model) {
            own.push((adapter.to_owned(), path));
            continue;
        }
        let found = fleet.models.iter_mut().find(|other| other.name == model);
        let Some(found) = found else {
            return Err(SettingsError::AdapterOf {
                value: format!("{name}={path}"),
                model: model.to_owned(),
            });
        };
        found.adapters.push((adapter.to_owned(), path.into()));
    }
    Ok((adapters(args, own)?, fleet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use crate::settings::Settings;

    fn settings(words: &[&str]) -> Result<Settings, String> {
        let words = [&["understudy", "serve"], words].concat();
        match Args::command_of(words).map_err(|error| error.to_string())? {
            Command::Serve(args) => Settings::resolve(*args).map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_of_several_is_the_one_that_a_single_model_would_be() {
        let own = settings(&[
            "--model",
            "a=/m/a",
            "--model",
            "b=hf:org/b",
            "--adapter",
            "x=/x",
            "--adapter",
            "b:y=/y",
            "--adapter",
            "a:z=/z",
            "--model-memory",
            "6GiB",
        ])
        .unwrap();
        assert_eq!(
            (own.model.as_deref(), own.names),
            (Some("/m/a"), vec!["a".to_owned()])
        );
        let names: Vec<&str> = own
            .adapters
            .named
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["x", "z"]);
        let b = &own.fleet.models[0];
        assert_eq!((b.name.as_str(), b.path.as_str()), ("b", "hf:org/b"));
        assert_eq!(b.adapters, [("y".to_owned(), PathBuf::from("/y"))]);
        assert_eq!(own.fleet.budget_bytes, 6 << 30);
        let alone = settings(&["--model", "/m/a"]).unwrap();
        assert_eq!(
            (alone.model.as_deref(), alone.names.len()),
            (Some("/m/a"), 0)
        );
        assert!(alone.fleet.models.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--model", "a=/a", "--model", "/b"][..], "--model /b"),
            (&["--model", "a=/a", "--model", "a=/b"], "`a` twice"),
            (&["--model", "a=/a", "--model", "b:c=/b"], "--model b:c=/b"),
            (&["/a", "--model", "b=/b"], "cannot be used with"),
            (
                &["--model", "a=/a", "--served-model-name", "b"],
                "--served-model-name",
            ),
            (&["--model", "a=/a", "--adapter", "c:x=/x"], "no model `c`"),
            (&["--model-memory", "1GiB"], "--model"),
            (
                &[
                    "--model",
                    "a=/a",
                    "--model",
                    "b=/b",
                    "--alias",
                    "g=a*1,b*shadow",
                ],
                "--alias g: its shadows",
            ),
        ] {
            let error = settings(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
        let fine = [
            "--model",
            "a=/a",
            "--model",
            "b=/b",
            "--alias",
            "g=b*1,b:x*shadow",
        ];
        assert!(settings(&fine).is_ok());
    }
}
