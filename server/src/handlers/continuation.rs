//! Going on where the last message ends: the prompt is cut where its content ends.
//!
//! Where that is, a mark tells that is put behind the content before the template renders it.
//! To look for the content itself would find it in what closes the message (`end` in
//! `<|im_end|>`), or miss it where the template trims it.

use serde_json::Value;

use crate::openai::ApiError;

/// The end of the last message, marked.
#[derive(Debug)]
pub(super) struct Continuation {
    content: String,
    mark: char,
}

impl Continuation {
    /// Puts `mark`, which occurs nowhere in the request, behind the last message's content. The
    /// space after it tells whether the template trims what it renders.
    pub(super) fn of(messages: &mut Value, mark: char) -> Result<Self, ApiError> {
        let last = messages.as_array_mut().and_then(|all| all.last_mut());
        match last.and_then(|message| message.get_mut("content")) {
            Some(Value::String(content)) => {
                let marked = format!("{content}{mark} ");
                let content = std::mem::replace(content, marked);
                Ok(Self { content, mark })
            }
            _ => Err(refused()),
        }
    }

    /// What is continued.
    pub(super) fn content(&self) -> &str {
        &self.content
    }

    /// Cuts the rendered text behind the content. A template that trims its messages would have
    /// trimmed it there as well.
    pub(super) fn cut(&self, text: &mut String) -> Result<(), ApiError> {
        let end = text.rfind(self.mark).ok_or_else(refused)?;
        let is_trimmed = !text[end..].starts_with(&format!("{} ", self.mark));
        text.truncate(end);
        if is_trimmed {
            text.truncate(text.trim_end().len());
        }
        Ok(())
    }
}

fn refused() -> ApiError {
    let message = "The final message cannot be continued: the chat template of this model does \
                   not render its content as it is.";
    ApiError::invalid("continue_final_message", "invalid_value", message)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::{Map, json};

    use super::*;
    use crate::text::ChatTemplate;

    fn prompt(template: &str, content: &str) -> Result<String, ApiError> {
        let template =
            ChatTemplate::from_text("t", template, &Map::new(), SystemTime::now).unwrap();
        let mut messages = json!([
            {"role": "user", "content": "Begin"}, {"role": "assistant", "content": content}]);
        let continuation = Continuation::of(&mut messages, '\u{f0000}')?;
        assert_eq!(continuation.content(), content);
        let mut text = template
            .render(&messages, None, false, &Map::new())
            .unwrap();
        continuation.cut(&mut text)?;
        Ok(text)
    }

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
        <|im_end|>\n{% endfor %}";

    #[test]
    fn what_closes_a_message_is_not_its_content() {
        for content in ["end", "e", "im", "A story", "a  ", "\n", "", "Begin"] {
            assert_eq!(
                prompt(CHATML, content).unwrap(),
                format!("<|im_start|>user\nBegin<|im_end|>\n<|im_start|>assistant\n{content}")
            );
        }
    }

    #[test]
    fn a_template_that_trims_trims_here_too() {
        let trims = CHATML.replace("m.content", "m.content | trim");
        for (content, kept) in [("end ", "end"), ("im", "im"), (" e\n ", "e")] {
            let text = prompt(&trims, content).unwrap();
            assert!(text.ends_with(&format!("assistant\n{kept}")), "{text:?}");
        }
    }

    #[test]
    fn content_that_is_not_rendered_cannot_be_continued() {
        let error = prompt("{{ messages[0].content }}", "x").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("continue_final_message"));
    }
}
