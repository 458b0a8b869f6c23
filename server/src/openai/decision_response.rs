//! What `POST /v1/decisions` answers.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Question, QuestionKind, ResponseUsage, TokenCounts};

/// Answers in the order of their questions.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Decision {
    model: String,
    answers: Vec<DecisionAnswer>,
    usage: ResponseUsage,
}

/// One answer. Probabilities of one answer sum to 1.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DecisionAnswer {
    Predicate {
        name: Option<String>,
        /// That the statement is true.
        probability: f64,
    },
    Choice {
        name: Option<String>,
        /// The most probable value.
        choice: Value,
        /// Its probability.
        confidence: f64,
        /// Of all values, in the order of the question.
        probabilities: Vec<ValueProbability>,
    },
    Score {
        name: Option<String>,
        /// The mean of the levels' numbers, weighted by their probabilities.
        score: f64,
        /// The probability of the most probable level.
        confidence: f64,
        /// Of all levels, in the order of the question.
        probabilities: Vec<LevelProbability>,
    },
}

/// How probable a value is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ValueProbability {
    value: Value,
    probability: f64,
}

/// How probable a level is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LevelProbability {
    label: String,
    /// Its number: levels count from 0.
    value: usize,
    probability: f64,
}

impl Decision {
    pub fn new(model: String, answers: Vec<DecisionAnswer>, counts: TokenCounts) -> Self {
        Self {
            model,
            answers,
            usage: counts.into(),
        }
    }
}

impl DecisionAnswer {
    /// Of a question whose labels have these probabilities.
    pub fn new(question: Question, probabilities: &[f64]) -> Self {
        let name = question.name;
        let (best, confidence) = best(probabilities);
        let labelled = probabilities.iter().copied();
        match question.kind {
            QuestionKind::Predicate => Self::Predicate {
                name,
                probability: probabilities[0],
            },
            QuestionKind::Choice(choices) => Self::Choice {
                name,
                choice: choices[best].value.clone(),
                confidence,
                probabilities: choices
                    .into_iter()
                    .zip(labelled)
                    .map(|(choice, probability)| ValueProbability {
                        value: choice.value,
                        probability,
                    })
                    .collect(),
            },
            QuestionKind::Score(levels) => Self::Score {
                name,
                score: mean(probabilities),
                confidence,
                probabilities: (0..)
                    .zip(levels)
                    .zip(labelled)
                    .map(|((value, level), probability)| LevelProbability {
                        label: level.label,
                        value,
                        probability,
                    })
                    .collect(),
            },
        }
    }
}

/// The first of the highest.
fn best(probabilities: &[f64]) -> (usize, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, probability) in probabilities.iter().copied().enumerate() {
        if probability > best.1 {
            best = (i, probability);
        }
    }
    best
}

fn mean(probabilities: &[f64]) -> f64 {
    let numbered = probabilities.iter().zip(0_u32..);
    numbered.map(|(p, number)| p * f64::from(number)).sum()
}
