//! Questions as a model reads them, and the labels that it may answer with.

use serde_json::Value;

use crate::openai::{Question, QuestionKind};

/// Labels of this many options are letters.
const N_LETTERS: usize = 26;

/// The question as text, and one label for each of its answers. No label begins with another.
pub(super) fn asked(question: &Question) -> (String, Vec<String>) {
    let instructions = &question.instructions;
    match &question.kind {
        QuestionKind::Predicate => {
            let text = format!(
                "Is the following statement about the above true? Answer with Yes or No \
                 only.\n\n{instructions}"
            );
            (text, vec!["Yes".to_owned(), "No".to_owned()])
        }
        QuestionKind::Choice(choices) => {
            let options = choices.iter().map(|choice| {
                let value = match &choice.value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                described(value, choice.description.as_deref())
            });
            listed(instructions, "Options", options.collect())
        }
        QuestionKind::Score(levels) => {
            let options = levels
                .iter()
                .map(|level| described(level.label.clone(), level.description.as_deref()));
            let head = "Levels, from the lowest to the highest";
            listed(instructions, head, options.collect())
        }
    }
}

fn described(option: String, description: Option<&str>) -> String {
    match description {
        None => option,
        Some(description) => format!("{option} ({description})"),
    }
}

fn listed(instructions: &str, head: &str, options: Vec<String>) -> (String, Vec<String>) {
    let labels = labels(options.len());
    let lines: String = labels
        .iter()
        .zip(options)
        .map(|(label, option)| format!("{label}: {option}\n"))
        .collect();
    let text =
        format!("{instructions}\n\n{head}:\n{lines}\nAnswer with the label of one of these only.");
    (text, labels)
}

/// Letters, or numbers of the same width.
fn labels(n: usize) -> Vec<String> {
    if n <= N_LETTERS {
        return ('A'..='Z').take(n).map(String::from).collect();
    }
    let width = n.to_string().len();
    (1..=n).map(|i| format!("{i:0width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_begins_with_another() {
        for n in [2, 26, 27, 99, 100, 255] {
            let labels = labels(n);
            assert_eq!(labels.len(), n);
            for (i, label) in labels.iter().enumerate() {
                let others = labels[..i].iter().chain(&labels[i + 1..]);
                assert_eq!(others.filter(|other| other.starts_with(label)).count(), 0);
            }
        }
    }
}
