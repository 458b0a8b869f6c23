//! Tokenizer and chat template out of a real GGUF file: the demo model.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use models::Gguf;
use serde_json::{Map, Value};
use understudy::source;
use understudy::text::{ChatTemplate, Detokenizer, Tokenizer};

fn goldens() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/goldens/smollm2.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

fn demo() -> std::path::PathBuf {
    let settings = source::SourceSettings::from_env().unwrap();
    source::resolve(None, &settings).unwrap().path
}

#[test]
fn the_demo_model_s_text_equals_the_reference() {
    let gguf = Gguf::open(&demo()).unwrap();
    let started = std::time::Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert!(
        started.elapsed().as_millis() < 1500,
        "{:?}",
        started.elapsed()
    );
    let template = ChatTemplate::from_gguf(&gguf, std::time::SystemTime::now)
        .unwrap()
        .unwrap();
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(500));
    let goldens = goldens();
    let adapters = goldens["adapters"].as_object().unwrap().values();
    let lists = [&goldens["base"]]
        .into_iter()
        .chain(adapters.filter_map(|a| a.get("cases")));
    let mut n_cases = 0;
    for case in lists.flat_map(|list| list.as_array().unwrap()) {
        let Some(prompt) = case["prompt_text"].as_str() else {
            continue;
        };
        n_cases += 1;
        let rendered = template
            .render(&case["messages"], None, true, &Map::new())
            .unwrap();
        assert_eq!(rendered, prompt);
        assert_eq!(tokenizer.encode(prompt, false).unwrap(), ids(&case["ids"]));
        assert_eq!(
            tokenizer.encode(prompt, true).unwrap(),
            ids(&case["ids"]),
            "no BOS by default"
        );
        let answer = ids(&case["greedy"]["ids"]);
        let mut stream = Detokenizer::new(tokenizer.clone());
        let text: String =
            answer.iter().map(|&id| stream.push(id)).collect::<String>() + &stream.finish();
        assert_eq!(text, case["text"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&answer), text);
    }
    assert!(n_cases >= 3, "{n_cases}");
}
