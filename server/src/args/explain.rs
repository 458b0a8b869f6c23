//! `understudy config`: the settings as a file, or as a table that says where each comes from.

use std::fmt::Write;

use super::layers::{Origin, Told};

const HIDDEN: &str = "(not shown)";

/// One line a setting: name, value, origin.
pub(super) fn table(told: &[Told]) -> String {
    let rows = told.iter().map(|setting| {
        let value = match (&setting.values[..], setting.is_secret) {
            ([], _) => "(not set)".to_owned(),
            (_, true) => HIDDEN.to_owned(),
            (values, false) => values.join(", "),
        };
        let origin = match &setting.origin {
            Origin::Flag => "flag".to_owned(),
            Origin::Variable(name) => format!("variable {name}"),
            Origin::File(path) => format!("file {}", path.display()),
            Origin::Default => "default".to_owned(),
        };
        [setting.name.clone(), value, origin]
    });
    let heads = ["setting", "value", "from"].map(str::to_owned);
    let rows: Vec<[String; 3]> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    rows.iter()
        .fold(String::new(), |mut text, [name, value, origin]| {
            // Writing to a string cannot fail.
            writeln!(text, "{name:<first$}  {value:<second$}  {origin}").ok();
            text
        })
}

/// The settings as a file that `--config` takes. Keys are left out.
pub(super) fn file(told: &[Told]) -> String {
    let mut text = String::new();
    for setting in told.iter().filter(|setting| setting.name != "config") {
        let value = |text: &String| match text.parse::<i64>() {
            Ok(number) => number.to_string(),
            Err(_) => toml::Value::String(text.clone()).to_string(),
        };
        let line = match (&setting.values[..], setting.is_secret) {
            ([], _) => continue,
            (_, true) => format!("# {} = {HIDDEN}", setting.name),
            ([is_set], _) if setting.is_flag => format!("{} = {is_set}", setting.name),
            (values, _) if setting.is_list => {
                let values: Vec<String> = values.iter().map(value).collect();
                format!("{} = [{}]", setting.name, values.join(", "))
            }
            (values, _) => format!("{} = {}", setting.name, value(&values[0])),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}
