//! Typed reading of JSON fields, with errors that name them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::LoadError;

/// The fields of a JSON object. `null` counts as absent, as Python's `None` is written so.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    file: &'a Path,
    /// What stands before a field's name in errors: empty, or `rope_scaling.`.
    prefix: String,
    map: &'a Map<String, Value>,
    /// Other names of some fields, preferred to the usual ones.
    aliases: Aliases,
}

/// Usual names of fields, and what a family calls them.
pub(crate) type Aliases = &'static [(&'static str, &'static str)];

impl<'a> Fields<'a> {
    pub(crate) fn of_root(file: &'a Path, value: &'a Value) -> Result<Self, LoadError> {
        let map = value
            .as_object()
            .ok_or_else(|| LoadError::new(file, "expected a JSON object"))?;
        Ok(Self {
            file,
            prefix: String::new(),
            map,
            aliases: &[],
        })
    }

    /// The same fields under a family's names for them.
    pub(crate) fn with_aliases(self, aliases: Aliases) -> Self {
        Self { aliases, ..self }
    }

    /// The file's own name of a field: the alias that it has; if it has neither, the first alias.
    pub(crate) fn own_name<'n>(&self, name: &'n str) -> &'n str {
        let mut aliases = self.aliases.iter().filter(|(usual, _)| *usual == name);
        let mut first = None;
        for (_, alias) in aliases.by_ref() {
            if self.map.contains_key(*alias) {
                return alias;
            }
            first = first.or(Some(*alias));
        }
        match first {
            Some(alias) if !self.map.contains_key(name) => alias,
            _ => name,
        }
    }

    /// The object in field `name`.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, LoadError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let map = value
            .as_object()
            .ok_or_else(|| self.ill_typed(name, "an object", value))?;
        Ok(Some(Fields {
            file: self.file,
            prefix: format!("{}{name}.", self.prefix),
            map,
            aliases: &[],
        }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = self.map.get(self.own_name(name));
        value.filter(|value| !value.is_null())
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    /// An error about field `name`.
    pub(crate) fn error(&self, name: &str, message: impl std::fmt::Display) -> LoadError {
        LoadError::new(
            self.file,
            format!("field `{}{}`: {message}", self.prefix, self.own_name(name)),
        )
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::new(
            self.file,
            format!("field `{}{}` is missing", self.prefix, self.own_name(name)),
        )
    }

    fn ill_typed(&self, name: &str, expected: &str, found: &Value) -> LoadError {
        let mut found = found.to_string();
        if found.chars().count() > 80 {
            found = found.chars().take(80).chain("...".chars()).collect();
        }
        self.error(name, format!("expected {expected}, found {found}"))
    }

    pub(crate) fn opt_size(&self, name: &str) -> Result<Option<usize>, LoadError> {
        self.get(name)
            .map(|value| {
                // transformers writes some sizes as 4096.0 when they come from a division.
                let whole = value
                    .as_f64()
                    .filter(|x| x.fract() == 0.0 && (0.0..9e15).contains(x));
                value
                    .as_u64()
                    .or(whole.map(|x| x as u64))
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.ill_typed(name, "a whole number", value))
            })
            .transpose()
    }

    pub(crate) fn size(&self, name: &str) -> Result<usize, LoadError> {
        self.opt_size(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn opt_number(&self, name: &str) -> Result<Option<f64>, LoadError> {
        self.get(name)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| self.ill_typed(name, "a number", value))
            })
            .transpose()
    }

    pub(crate) fn opt_f32(&self, name: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.opt_number(name)?.map(|x| x as f32))
    }

    /// `default` when the field is absent.
    pub(crate) fn bool_or(&self, name: &str, default: bool) -> Result<bool, LoadError> {
        Ok(self.opt_bool(name)?.unwrap_or(default))
    }

    /// Refuses any value of a boolean field but `needed`, which is also its default.
    pub(crate) fn needs(&self, name: &str, needed: bool) -> Result<(), LoadError> {
        if self.bool_or(name, needed)? == needed {
            return Ok(());
        }
        Err(self.error(name, format!("{} is not supported", !needed)))
    }

    pub(crate) fn number(&self, name: &str) -> Result<f64, LoadError> {
        self.opt_number(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn opt_bool(&self, name: &str) -> Result<Option<bool>, LoadError> {
        self.get(name)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.ill_typed(name, "true or false", value))
            })
            .transpose()
    }

    pub(crate) fn opt_str(&self, name: &str) -> Result<Option<&'a str>, LoadError> {
        self.get(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.ill_typed(name, "a string", value))
            })
            .transpose()
    }

    pub(crate) fn str(&self, name: &str) -> Result<&'a str, LoadError> {
        self.opt_str(name)?.ok_or_else(|| self.missing(name))
    }

    /// A list of numbers.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let value = self.get(name).ok_or_else(|| self.missing(name))?;
        let one = |value: &Value| value.as_f64().map(|x| x as f32);
        value
            .as_array()
            .and_then(|list| list.iter().map(one).collect())
            .ok_or_else(|| self.ill_typed(name, "a list of numbers", value))
    }

    /// One token id or a list of them; empty when the field is absent.
    pub(crate) fn tokens(&self, name: &str) -> Result<Vec<u32>, LoadError> {
        let Some(value) = self.get(name) else {
            return Ok(Vec::new());
        };
        let one = |value: &Value| {
            value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.ill_typed(name, "a token id or a list of them", value))
        };
        match value.as_array() {
            Some(ids) => ids.iter().map(one).collect(),
            None => Ok(vec![one(value)?]),
        }
    }
}
