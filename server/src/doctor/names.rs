//! Aliases: whether what they stand for will be served.

use super::Finding;
use crate::adapters::{Choice, Names};
use crate::aliases::{Served, faults};
use crate::settings::Settings;
use crate::source;

/// Looks at the aliases, with the names that models and adapters will have.
pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let aliases = &settings.app.aliases;
    if aliases.is_empty() {
        return Vec::new();
    }
    let Some(own) = names(settings) else {
        let text = "not looked at: the name of the model is known when it is there";
        return vec![Finding::good("aliases", text)];
    };
    let is_adapter = |name: &str| settings.adapters.names(name);
    let served = Served {
        is_name: &|name| own.iter().any(|own| own == name) || is_adapter(name),
        provides: &|name| {
            let of_first = chosen(&own, &is_adapter, name);
            let mut others = settings.fleet.models.iter();
            of_first
                || others.any(|model| {
                    let is_own = |name: &str| model.adapters.iter().any(|(own, _)| own == name);
                    name.starts_with(&model.name)
                        && chosen(std::slice::from_ref(&model.name), &is_own, name)
                })
        },
    };
    let faults = faults(aliases, &served);
    if faults.is_empty() {
        return vec![Finding::good("aliases", "all stand for what is served")];
    }
    let finding = |fault: crate::aliases::AliasFault| {
        let text = fault.to_string();
        if fault.is_final(settings.adapters.can_grow()) {
            Finding::bad("aliases", text)
        } else {
            Finding::doubtful("aliases", text)
        }
    };
    faults.into_iter().map(finding).collect()
}

fn chosen(base: &[String], is_adapter: &dyn Fn(&str) -> bool, name: &str) -> bool {
    let names = Names {
        base,
        meant: &|_| None,
        is_adapter,
        told: &Vec::new,
    };
    Choice::of_model(name, &names).is_ok()
}

/// Names of all models; `None` if the first one's is not known.
fn names(settings: &Settings) -> Option<Vec<String>> {
    let mut names = settings.names.clone();
    if names.is_empty() {
        let source = source::resolve_local(settings.model.as_deref()).ok()?;
        names.push(source.map_or_else(|| source::DEMO_NAME.to_owned(), |source| source.name));
        if settings
            .model
            .as_deref()
            .is_some_and(|model| model.starts_with("hf:"))
        {
            return None;
        }
    }
    names.extend(settings.fleet.models.iter().map(|model| model.name.clone()));
    if let Some(encoder) = &settings.embedding_model {
        let source = source::resolve_local(Some(encoder)).ok()??;
        names.push(source.name);
    }
    Some(names)
}
