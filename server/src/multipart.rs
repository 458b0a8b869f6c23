//! `multipart/form-data` (RFC 7578), piece by piece: what is pushed comes out as parts, their
//! bytes and their ends, and no more is held than a boundary could still begin in, or the head of
//! a part, which is bounded.

use memchr::memmem;

/// Bytes of the headers of a part.
const MAX_HEAD: usize = 8 << 10;
/// RFC 2046.
const MAX_BOUNDARY: usize = 70;

/// A form that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("expected the content type multipart/form-data with a boundary")]
    ContentType,
    #[error("the form ends before its last boundary")]
    Unfinished,
    #[error("what follows a boundary is neither a part nor the end")]
    Boundary,
    #[error("the headers of a part exceed {MAX_HEAD} bytes")]
    LongHead,
    #[error("a part has no header 'Content-Disposition: form-data; name=\"...\"' in UTF-8")]
    Disposition,
    #[error("a part is encoded as {0}; send it as it is")]
    Encoding(String),
}

/// What a part is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartHead {
    pub(crate) name: String,
    /// `None`: a plain field.
    pub(crate) filename: Option<String>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Begin(PartHead),
    /// More bytes of the part; never empty.
    Data(Vec<u8>),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first boundary.
    Preamble,
    /// Behind a boundary.
    Boundary,
    Head,
    Data,
    /// Behind the last boundary.
    Done,
}

/// A form that is being received.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// A line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    place: Place,
}

impl Multipart {
    /// A form of this content type.
    pub(crate) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let boundary = parameter(parameters, "boundary").unwrap_or_default();
        let is_form = kind.trim().eq_ignore_ascii_case("multipart/form-data");
        if !is_form || !(1..=MAX_BOUNDARY).contains(&boundary.len()) {
            return Err(MultipartError::ContentType);
        }
        Ok(Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first boundary has no line before it that could end.
            buffer: b"\r\n".to_vec(),
            place: Place::Preamble,
        })
    }

    /// Takes what has been received.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.place != Place::Done {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next piece; `None` until more is pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, MultipartError> {
        loop {
            let piece = match self.place {
                Place::Preamble => self.preamble(),
                Place::Boundary => self.boundary()?,
                Place::Head => self.head()?,
                Place::Data => self.data(),
                Place::Done => return Ok(None),
            };
            match piece {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::More => return Ok(None),
                Step::On => {}
            }
        }
    }

    /// Nothing more comes.
    pub(crate) fn finish(self) -> Result<(), MultipartError> {
        if self.place == Place::Done {
            Ok(())
        } else {
            Err(MultipartError::Unfinished)
        }
    }

    /// Leaves the buffer without its first bytes.
    fn cut(&mut self, n: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(n);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Bytes that no boundary can begin in, if there is none.
    fn n_free(&self) -> usize {
        (self.buffer.len() + 1).saturating_sub(self.delimiter.len())
    }

    fn preamble(&mut self) -> Step {
        if let Some(at) = memmem::find(&self.buffer, &self.delimiter) {
            self.cut(at + self.delimiter.len());
            self.place = Place::Boundary;
            return Step::On;
        }
        self.cut(self.n_free());
        Step::More
    }

    fn boundary(&mut self) -> Result<Step, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            self.place = Place::Done;
            return Ok(Step::On);
        }
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let n_blank = self.buffer.iter().take_while(|byte| is_blank(byte)).count();
        match &self.buffer[n_blank..] {
            [b'\r', b'\n', ..] => {
                // The line break stays: headers begin behind one, and there may be none.
                self.cut(n_blank);
                self.place = Place::Head;
                Ok(Step::On)
            }
            [] | [b'\r'] if n_blank < MAX_HEAD => Ok(Step::More),
            [b'-'] if n_blank == 0 => Ok(Step::More),
            _ => Err(MultipartError::Boundary),
        }
    }

    fn head(&mut self) -> Result<Step, MultipartError> {
        match memmem::find(&self.buffer, b"\r\n\r\n") {
            Some(at) if at <= MAX_HEAD => {
                let head = self.cut(at + 4);
                self.place = Place::Data;
                PartHead::read(&head).map(|head| Step::Piece(Piece::Begin(head)))
            }
            None if self.buffer.len() <= MAX_HEAD => Ok(Step::More),
            _ => Err(MultipartError::LongHead),
        }
    }

    fn data(&mut self) -> Step {
        if let Some(at) = memmem::find(&self.buffer, &self.delimiter) {
            if at > 0 {
                return Step::Piece(Piece::Data(self.cut(at)));
            }
            self.cut(self.delimiter.len());
            self.place = Place::Boundary;
            return Step::Piece(Piece::End);
        }
        match self.n_free() {
            0 => Step::More,
            n => Step::Piece(Piece::Data(self.cut(n))),
        }
    }
}

/// What came of looking at the buffer.
enum Step {
    Piece(Piece),
    /// It depends on what comes.
    More,
    /// Look again.
    On,
}

impl PartHead {
    /// Reads the headers of a part.
    fn read(head: &[u8]) -> Result<Self, MultipartError> {
        let text = std::str::from_utf8(head).map_err(|_| MultipartError::Disposition)?;
        let header = |name: &str| {
            text.split("\r\n").find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found
                    .trim()
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim())
            })
        };
        if let Some(encoding) = header("content-transfer-encoding")
            && !["7bit", "8bit", "binary"].contains(&encoding.to_ascii_lowercase().as_str())
        {
            return Err(MultipartError::Encoding(encoding.to_owned()));
        }
        let disposition = header("content-disposition").ok_or(MultipartError::Disposition)?;
        let (kind, parameters) = disposition
            .split_once(';')
            .ok_or(MultipartError::Disposition)?;
        match parameter(parameters, "name") {
            Some(name) if kind.trim().eq_ignore_ascii_case("form-data") => Ok(Self {
                name,
                filename: parameter(parameters, "filename"),
            }),
            _ => Err(MultipartError::Disposition),
        }
    }
}

/// A parameter of a header, such as `name="value"`, as browsers write it: a quote and line breaks
/// as `%22`, `%0D` and `%0A`, or a quote behind a backslash as older clients do.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (found, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted)?,
            None => {
                let end = behind.find([';', ' ', '\t']).unwrap_or(behind.len());
                (behind[..end].to_owned(), &behind[end..])
            }
        };
        if found.trim().eq_ignore_ascii_case(name) {
            let value = value.replace("%22", "\"");
            return Some(value.replace("%0D", "\r").replace("%0A", "\n"));
        }
        rest = behind;
    }
}

/// What stands before the closing quote, and what is behind it.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push(c),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests;
