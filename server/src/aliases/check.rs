//! Whether aliases can do what they say, which is known once models and adapters are.

use super::Alias;

/// What is wrong with an alias beside all that is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasFault {
    #[error(
        "--alias {alias}: a model or an adapter of this name is served, which the alias would hide; \
         give the alias another name"
    )]
    Hides { alias: String },
    #[error("--alias {alias}: `{target}` is neither a model nor an adapter that is served")]
    NoTarget { alias: String, target: String },
}

/// What is served beside aliases.
#[expect(missing_debug_implementations, reason = "it borrows closures")]
pub struct Served<'a> {
    /// Whether this is a name of a model or an adapter.
    pub is_name: &'a dyn Fn(&str) -> bool,
    /// Whether requests for it could be answered: names, adapters of a model, stacks.
    pub provides: &'a dyn Fn(&str) -> bool,
}

/// All that is wrong with `aliases`.
pub fn faults(aliases: &[Alias], served: &Served<'_>) -> Vec<AliasFault> {
    let mut faults = Vec::new();
    for alias in aliases {
        let name = &alias.name;
        if (served.is_name)(name) {
            faults.push(AliasFault::Hides {
                alias: name.clone(),
            });
        }
        let missing = alias.targets().filter(|target| !(served.provides)(target));
        faults.extend(missing.map(|target| AliasFault::NoTarget {
            alias: name.clone(),
            target: target.to_owned(),
        }));
    }
    faults
}

impl AliasFault {
    /// Whether nothing can mend it while the server runs. `can_grow`: adapters may come later.
    pub fn is_final(&self, can_grow: bool) -> bool {
        match self {
            Self::Hides { .. } => true,
            Self::NoTarget { .. } => !can_grow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_a_name_or_stands_for_nothing_is_told() {
        let served = Served {
            is_name: &|name| ["base", "one"].contains(&name),
            provides: &|name| ["base", "one", "base:one@0.5"].contains(&name),
        };
        let found = |text: &str| {
            let alias = Alias::parse(text).unwrap();
            let faults = faults(&[alias], &served);
            let told = faults.iter().map(|f| (f.to_string(), f.is_final(true)));
            told.collect::<Vec<_>>()
        };
        assert!(found("gpt=base*9,base:one@0.5*1").is_empty());
        for hidden in ["base=one", "one=base"] {
            let told = found(hidden);
            assert!(told.len() == 1 && told[0].1, "{told:?}");
            assert!(told[0].0.contains("would hide"), "{told:?}");
        }
        let told = found("gpt=base*1,two*shadow");
        assert!(told.len() == 1 && !told[0].1, "{told:?}");
        assert!(told[0].0.contains("`two`"), "{told:?}");
        // An alias of an alias is not followed.
        assert_eq!(found("base=zz").len(), 2);
    }
}
