//! Which adapters there are: what is in the directory, and what has gone from it.

use super::{AdapterError, Shared};
use crate::adapters::disk;
use crate::adapters::registry::Origin;
use crate::identity::unix_seconds;

impl Shared {
    /// Names are used in stacks and in figures.
    pub(super) fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        let refused = |message: &str| {
            Err(AdapterError::Refused {
                name: name.to_owned(),
                message: message.to_owned(),
            })
        };
        let is_odd = |c: char| c.is_control() || c.is_whitespace() || "@+:".contains(c);
        if name.is_empty() || name.len() > 256 || name.contains(is_odd) {
            return refused(
                "a name has 1 to 256 bytes, and neither white space nor any of `@`, `+` and `:`",
            );
        }
        if let Some((_, what)) = self.taken.iter().find(|(taken, _)| taken == name) {
            return refused(&format!("this is the name of {what}"));
        }
        Ok(())
    }

    /// Whether the name is known, or to be found in the directory.
    pub(super) fn find(&self, name: &str) -> bool {
        if self.lock().get(name).is_some() {
            return true;
        }
        let found = self
            .options
            .dir
            .as_deref()
            .and_then(|dir| disk::in_dir(dir, name));
        match found {
            Some(path) if self.check_name(name).is_ok() => {
                let origin = Origin::Directory;
                self.lock().add(name, path, origin, unix_seconds());
                true
            }
            _ => false,
        }
    }

    /// Makes all that is in the directory known, and forgets what has gone from it.
    pub(super) fn scan(&self) -> Result<(), AdapterError> {
        let Some(dir) = &self.options.dir else {
            return Ok(());
        };
        self.lock().remove_gone();
        self.show();
        let names = disk::names_in(dir).map_err(|error| AdapterError::Directory {
            flag: "adapter-dir",
            path: dir.clone(),
            message: error.to_string(),
        })?;
        for name in names {
            self.find(&name);
        }
        Ok(())
    }
}
