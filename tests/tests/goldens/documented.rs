//! The table of families in the documents against the checkpoints and the tests that there are.

use std::collections::BTreeSet;

use crate::expected::fixtures;

macro_rules! names {
    ($($test:ident: $model:literal,)*) => {
        const CHECKED: &[&str] = &[$($model),*];
    };
}

each_model!(names, opt: "opt", falcon_alibi: "falcon-alibi", phi3_longrope: "phi3-longrope",);

#[test]
fn every_checkpoint_has_tests_and_a_place_in_the_documents() {
    let entries = std::fs::read_dir(fixtures().join("models")).expect("micro checkpoints");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let there: BTreeSet<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let checked: BTreeSet<String> = CHECKED.iter().map(|name| (*name).to_string()).collect();
    assert_eq!(there, checked);
    let path = fixtures().join("../../docs/models.md");
    let text = std::fs::read_to_string(path).expect("docs/models.md");
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let cells: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(4))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let missing: Vec<&String> = there
        .iter()
        .filter(|name| !cells.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in docs/models.md: {missing:?}");
}
