//! Variables of the environment that are wrong: what is said of their values, and those that no
//! setting has.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::layers::{PREFIX, WITH_SETTINGS};

/// Clap calls every value one of its flag. The same error, which names the variable where the flag
/// was not typed.
pub(super) fn named(command: &Command, words: &[OsString], error: clap::Error) -> clap::Error {
    let is_of_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    );
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if !is_of_value {
        return error;
    }
    // Only a command that is built can name its arguments.
    let mut command = command.clone();
    command.build();
    let settings = words.get(1).and_then(|word| word.to_str());
    let settings = settings.and_then(|name| command.find_subcommand(name));
    let mut args = settings.into_iter().flat_map(Command::get_arguments);
    let Some(found) = args.find(|known| known.to_string() == *arg) else {
        return error;
    };
    let (Some(variable), false) = (found.get_env(), is_typed(found, words)) else {
        return error;
    };
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let told: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    let message = format!(
        "{} (from the variable {})\n",
        told.join("\n"),
        variable.display()
    );
    clap::Error::raw(error.kind(), message)
}

fn is_typed(arg: &Arg, words: &[OsString]) -> bool {
    let Some(long) = arg.get_long() else {
        // What has no flag is told by its place.
        return true;
    };
    words.iter().any(|word| {
        let rest = word.to_str().and_then(|word| word.strip_prefix("--"));
        let rest = rest.and_then(|word| word.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// Names of `variables` that begin like those of settings, and that no setting has.
pub(super) fn unknown(
    command: &Command,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let commands = WITH_SETTINGS
        .iter()
        .filter_map(|name| command.find_subcommand(name));
    let known: BTreeSet<String> = commands
        .flat_map(Command::get_arguments)
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect();
    let named = variables.map(|(name, value)| {
        let text = |part: OsString| part.to_string_lossy().into_owned();
        (text(name), text(value))
    });
    let mut unknown: Vec<String> = named
        .filter(|(name, _)| name.starts_with(PREFIX) && !known.contains(name))
        .filter(|(name, value)| !is_of_a_service(name, value))
        .map(|(name, _)| name)
        .collect();
    unknown.sort();
    unknown
}

/// Kubernetes tells pods of the services beside them, in variables that begin with their names.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let is_part = ["_PROTO", "_ADDR", "_PORT"].iter().any(|end| {
        let before = name.strip_suffix(end).unwrap_or_default();
        ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|kind| before.ends_with(kind))
    });
    is_address
        || is_part
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
}

#[cfg(test)]
mod tests {
    use super::super::{Args, layers};
    use clap::CommandFactory;

    #[test]
    fn mistyped_variables_are_found_and_those_of_services_are_not() {
        let command = layers::with_variables(Args::command());
        let variables = [
            ("HOME", "/"),
            ("UNDERSTUDY_HTTP_PORT", "9000"),
            ("UNDERSTUDY_API_KEY", "x"),
            ("UNDERSTUDY_CONFIG", "x"),
            ("UNDERSTUDY_MAX_SEQS", "4"),
            ("UNDERSTUDY_HTP_PORT", "9000"),
            ("UNDERSTUDY_PORT", "tcp://10.0.0.1:8000"),
            ("UNDERSTUDY_SERVICE_HOST", "10.0.0.1"),
            ("UNDERSTUDY_SERVICE_PORT", "8000"),
            ("UNDERSTUDY_SERVICE_PORT_HTTP", "8000"),
            ("UNDERSTUDY_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
            ("UNDERSTUDY_PORT_8000_TCP_PROTO", "tcp"),
            ("UNDERSTUDY_PORT_8000_TCP_PORT", "8000"),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let found = super::unknown(&command, variables.into_iter());
        assert_eq!(found, ["UNDERSTUDY_HTP_PORT", "UNDERSTUDY_MAX_SEQS"]);
    }
}
