//! One compiled template and the limits it runs under.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value, json};

use super::functions::{self, Raised};
use super::messages::{self, Arguments};
use super::{Clock, TemplateError};

/// Instructions that one rendering may take: a conversation of 10,000 messages takes about two
/// million, an endless loop is stopped within a second.
const FUEL: u64 = 5_000_000;
/// Instructions for finding out what a template does with three messages.
const PROBE_FUEL: u64 = 200_000;
/// Bytes that one rendering may write.
const MAX_OUTPUT: usize = 64 << 20;

/// A template ready to render.
#[derive(Debug)]
pub(super) struct Compiled {
    file: String,
    environment: Environment<'static>,
    tokens: Map<String, Value>,
    /// The template asks whether `tools is none`; others want it undefined when there are none.
    tools_none: bool,
    arguments: Arguments,
}

impl Compiled {
    pub(super) fn new(
        file: &str,
        text: &str,
        tokens: &Map<String, Value>,
        clock: Clock,
    ) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().expect("the delimiters are the default ones"));
        // Prompts are not HTML, whatever the file is called.
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_fuel(Some(PROBE_FUEL));
        functions::register(&mut environment, clock);
        let mut compiled = Self {
            file: file.to_string(),
            tokens: tokens.clone(),
            tools_none: squeezed(text).contains("toolsisnone")
                || squeezed(text).contains("toolsisnotnone"),
            arguments: Arguments::AsGiven,
            environment,
        };
        let added = compiled
            .environment
            .add_template_owned(file.to_string(), without_generation_blocks(text));
        added.map_err(|error| compiled.error(&error))?;
        compiled.arguments = messages::probe_arguments(&|messages, tools| {
            compiled.run(messages, tools, true, &Map::new()).ok()
        });
        compiled.environment.set_fuel(Some(FUEL));
        Ok(compiled)
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The text of the template.
    pub(super) fn source(&self) -> String {
        let template = self.environment.get_template(&self.file);
        template.map_or_else(|_| String::new(), |template| template.source().to_owned())
    }

    /// Renders a conversation in the API's form.
    pub(super) fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let messages = messages::normalise(messages, self.arguments);
        self.run(&messages, tools, add_generation_prompt, kwargs)
    }

    fn run(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let mut variables = self.tokens.clone();
        variables.extend(kwargs.clone());
        variables.insert("messages".into(), messages.clone());
        variables.insert("add_generation_prompt".into(), json!(add_generation_prompt));
        match tools {
            Some(tools) => variables.insert("tools".into(), tools.clone()),
            None if self.tools_none => variables.insert("tools".into(), Value::Null),
            None => variables.remove("tools"),
        };
        let template = self.environment.get_template(&self.file);
        let template = template.map_err(|error| self.error(&error))?;
        let mut output = Output(Vec::new());
        let variables = minijinja::Value::from(Serde(&variables));
        let rendered = template
            .render_captured_to(variables, &mut output)
            .map(drop);
        rendered.map_err(|error| self.error(&error))?;
        String::from_utf8(output.0).map_err(|_| self.failed("the output is not UTF-8".into()))
    }

    fn error(&self, error: &Error) -> TemplateError {
        if let Some(Raised(message)) = functions::raised(error) {
            return TemplateError::Raised(message.clone());
        }
        let at = error
            .line()
            .map_or(String::new(), |line| format!("line {line}: "));
        let message = match error.kind() {
            ErrorKind::OutOfFuel => {
                format!("{at}the chat template does not end (stopped after {FUEL} instructions)")
            }
            kind => format!("{at}{kind}: {}", error.detail().unwrap_or("no details")),
        };
        self.failed(message)
    }

    fn failed(&self, message: String) -> TemplateError {
        TemplateError::Failed {
            file: self.file.clone(),
            message,
        }
    }
}

/// Collects the output up to its limit.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the chat template writes too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text without whitespace.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// `{% generation %}` marks what a trainer should learn; to a server it is a block that is always
/// taken. Written as an `if`, whitespace control stays as it was.
fn without_generation_blocks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else {
            break;
        };
        let inner = &tag[..end];
        let keyword = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replacement = match keyword {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        out.push_str(&inner.replacen(keyword, replacement, 1));
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}
