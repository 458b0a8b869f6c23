//! One call as a JSON object, read character by character: `{"name": ..., "arguments": {...}}`.

/// What a character has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    /// This is no call.
    Bad,
}

/// Where in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    Key,
    InKey,
    Colon,
    ValueStart,
    Value,
    AfterValue,
}

/// What is being read as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

/// Reads one call. The name is known before any argument is given out.
#[derive(Debug)]
pub(super) struct CallScanner {
    at: At,
    field: Field,
    /// The key or the value in progress, as it is written.
    raw: String,
    value: ValueScanner,
    name: Option<String>,
    /// Arguments, whether they came before the name or are still to be given out.
    arguments: String,
    has_arguments: bool,
    /// Only the arguments are an object; the name came from elsewhere.
    is_bare: bool,
}

/// Tells where a JSON value ends.
#[derive(Debug, Default)]
struct ValueScanner {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

/// How far a value has come with a character.
enum Extent {
    Inside,
    /// The character is its last.
    Last,
    /// It ended before the character.
    Before,
}

impl ValueScanner {
    fn start(&mut self, c: char) -> bool {
        *self = Self::default();
        match c {
            '{' | '[' => self.depth = 1,
            '"' => self.in_string = true,
            '-' | '0'..='9' | 'a'..='z' => self.is_scalar = true,
            _ => return false,
        }
        true
    }

    fn push(&mut self, c: char) -> Extent {
        if self.in_string {
            match c {
                _ if self.is_escaped => self.is_escaped = false,
                '\\' => self.is_escaped = true,
                '"' => {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Extent::Last;
                    }
                }
                _ => {}
            }
            return Extent::Inside;
        }
        match c {
            ',' | '}' | ']' | ' ' | '\n' | '\r' | '\t' if self.is_scalar => Extent::Before,
            '"' => {
                self.in_string = true;
                Extent::Inside
            }
            '{' | '[' => {
                self.depth += 1;
                Extent::Inside
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    Extent::Last
                } else {
                    Extent::Inside
                }
            }
            _ => Extent::Inside,
        }
    }
}

impl CallScanner {
    pub(super) fn new() -> Self {
        Self {
            at: At::Open,
            field: Field::Other,
            raw: String::new(),
            value: ValueScanner::default(),
            name: None,
            arguments: String::new(),
            has_arguments: false,
            is_bare: false,
        }
    }

    /// Of a call whose name is known: only its arguments follow.
    pub(super) fn of_arguments() -> Self {
        Self {
            at: At::ValueStart,
            field: Field::Arguments,
            has_arguments: true,
            is_bare: true,
            ..Self::new()
        }
    }

    /// The name, once it is known.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Arguments that have not been given out.
    pub(super) fn take_arguments(&mut self) -> String {
        std::mem::take(&mut self.arguments)
    }

    /// Whether the object had arguments at all.
    pub(super) fn has_arguments(&self) -> bool {
        self.has_arguments
    }

    pub(super) fn push(&mut self, c: char) -> Progress {
        let is_space = c.is_ascii_whitespace();
        match (self.at, c) {
            (At::Open | At::Key | At::Colon | At::ValueStart | At::AfterValue, _) if is_space => {
                return Progress::More;
            }
            (At::Open, '{') => self.at = At::Key,
            (At::Key | At::AfterValue, '}') => return self.end(),
            (At::Key, '"') => {
                self.raw = "\"".to_owned();
                self.value.start('"');
                self.at = At::InKey;
            }
            (At::InKey, _) => return self.key(c),
            (At::Colon, ':') => self.at = At::ValueStart,
            (At::ValueStart, _) => return self.begin_value(c),
            (At::Value, _) => return self.continue_value(c),
            (At::AfterValue, ',') => self.at = At::Key,
            _ => return Progress::Bad,
        }
        Progress::More
    }

    fn end(&self) -> Progress {
        if self.name.is_some() {
            Progress::Done
        } else {
            Progress::Bad
        }
    }

    fn key(&mut self, c: char) -> Progress {
        self.raw.push(c);
        if matches!(self.value.push(c), Extent::Last) {
            self.field = match self.raw.as_str() {
                "\"name\"" if self.name.is_none() => Field::Name,
                "\"arguments\"" | "\"parameters\"" if !self.has_arguments => Field::Arguments,
                _ => Field::Other,
            };
            self.at = At::Colon;
        }
        Progress::More
    }

    fn begin_value(&mut self, c: char) -> Progress {
        if !self.value.start(c) || (self.is_bare && c != '{') {
            return Progress::Bad;
        }
        self.raw.clear();
        self.at = At::Value;
        match self.field {
            Field::Name if c != '"' => return Progress::Bad,
            // Some models write the object as a string: it is kept until it can be read.
            Field::Arguments if c == '{' => {
                self.has_arguments = true;
                self.arguments.push(c);
            }
            Field::Arguments => {
                self.has_arguments = true;
                self.raw.push(c);
            }
            Field::Name | Field::Other => self.raw.push(c),
        }
        Progress::More
    }

    fn continue_value(&mut self, c: char) -> Progress {
        let extent = self.value.push(c);
        let is_object = self.field == Field::Arguments && self.raw.is_empty();
        if !matches!(extent, Extent::Before) {
            if is_object {
                self.arguments.push(c);
            } else {
                self.raw.push(c);
            }
        }
        match extent {
            Extent::Inside => Progress::More,
            Extent::Last if self.is_bare => Progress::Done,
            Extent::Last => self.end_value(is_object),
            Extent::Before => match self.end_value(is_object) {
                Progress::More => self.push(c),
                other => other,
            },
        }
    }

    fn end_value(&mut self, is_object: bool) -> Progress {
        self.at = At::AfterValue;
        match self.field {
            Field::Name => match serde_json::from_str::<String>(&self.raw) {
                Ok(name) if !name.is_empty() => self.name = Some(name),
                _ => return Progress::Bad,
            },
            Field::Arguments if !is_object => {
                // A string that holds the object, or a null for no arguments.
                match serde_json::from_str::<serde_json::Value>(&self.raw) {
                    Ok(serde_json::Value::String(text)) => self.arguments = text,
                    Ok(serde_json::Value::Null) => self.arguments = "{}".to_owned(),
                    Ok(_) => self.arguments = std::mem::take(&mut self.raw),
                    Err(_) => return Progress::Bad,
                }
            }
            Field::Arguments | Field::Other => {}
        }
        Progress::More
    }
}
