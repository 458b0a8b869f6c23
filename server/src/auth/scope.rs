//! What a key may do, and with what.

use serde::Deserialize;

use crate::adapters::Choice;
use crate::openai::ApiError;

/// A kind of routes that a key may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Whatever clients of the API ask for.
    Inference,
    /// What changes or shows the server itself.
    Admin,
    /// `/metrics`.
    Metrics,
}

impl Scope {
    /// As it is written in a file of keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// A key's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub scopes: Vec<Scope>,
    /// Names of whole models, and aliases of them; `None`: all.
    pub models: Option<Vec<String>>,
    /// Names of adapters, and aliases of them; `None`: all.
    pub adapters: Option<Vec<String>>,
}

impl Default for Grant {
    /// Everything: what a server without keys grants to everybody.
    fn default() -> Self {
        Self::of(&[Scope::Inference, Scope::Admin, Scope::Metrics])
    }
}

impl Grant {
    /// All models and adapters, in these scopes.
    pub fn of(scopes: &[Scope]) -> Self {
        Self {
            scopes: scopes.to_vec(),
            models: None,
            adapters: None,
        }
    }

    /// Whether it opens routes of this scope.
    pub fn opens(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether the whole model that a request calls `name` may be used.
    pub fn allows_model(&self, name: &str) -> bool {
        is_listed(self.models.as_deref(), name)
    }

    /// Whether a request may be answered by `choice`, which it calls `name`. Where that is an
    /// `alias` of the whole choice, it may be listed itself; otherwise every adapter of a stack
    /// must be.
    pub fn allows(&self, name: &str, alias: Option<&str>, choice: &Choice) -> bool {
        match choice {
            Choice::Base => self.allows_model(name),
            Choice::Adapters(parts) => {
                let adapters = self.adapters.as_deref();
                alias.is_some_and(|alias| is_listed(adapters, alias))
                    || parts.iter().all(|(part, _)| is_listed(adapters, part))
            }
        }
    }

    /// Whether there may be adapters that a request can name.
    pub(crate) fn allows_adapters(&self) -> bool {
        self.adapters.as_ref().is_none_or(|list| !list.is_empty())
    }

    /// What is not allowed is told as what does not exist, as the hosted API does.
    pub(crate) fn check(&self, name: &str, is_allowed: bool) -> Result<(), ApiError> {
        if is_allowed {
            Ok(())
        } else {
            Err(ApiError::model_not_found(name, &[]))
        }
    }
}

/// An entry that ends in `*` lists all names with that beginning.
fn is_listed(list: Option<&[String]>, name: &str) -> bool {
    let Some(list) = list else {
        return true;
    };
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => entry == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_of_models_and_of_adapters() {
        let grant = Grant {
            models: Some(vec!["base".to_owned()]),
            adapters: Some(vec!["a-*".to_owned(), "shared".to_owned()]),
            ..Grant::of(&[Scope::Inference])
        };
        let stack = |names: &[&str]| {
            Choice::Adapters(names.iter().map(|name| ((*name).to_owned(), 1.0)).collect())
        };
        assert!(grant.allows("base", None, &Choice::Base));
        assert!(!grant.allows("alias-of-base", None, &Choice::Base));
        assert!(grant.allows("a-1", None, &stack(&["a-1"])));
        assert!(grant.allows("base:a-1+shared", None, &stack(&["a-1", "shared"])));
        assert!(!grant.allows("base:a-1+b-1", None, &stack(&["a-1", "b-1"])));
        assert!(!grant.allows("b-1", None, &stack(&["b-1"])));
        // An alias is listed for all that it stands for, and nothing else is by its beginning.
        assert!(grant.allows("a-alias", Some("a-alias"), &stack(&["b-1"])));
        assert!(!grant.allows("a-base:b-1", None, &stack(&["b-1"])));
        assert!(grant.opens(Scope::Inference) && !grant.opens(Scope::Admin));
        assert!(Grant::default().allows("b-1", None, &stack(&["b-1"])));
    }
}
