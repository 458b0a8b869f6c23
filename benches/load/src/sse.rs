//! Server-sent events, cut at any byte.
//!
//! Written after the parsing rules of the HTML standard (section 9.2.6), as far as the OpenAI API
//! uses them: fields `data` and nothing else, lines that end in LF, CRLF or CR.

/// Puts events together from pieces.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR: an LF after it belongs to it.
    after_cr: bool,
}

impl SseParser {
    /// Takes the next bytes; gives the data of each event that they complete.
    pub fn push(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        for &byte in bytes {
            let was_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if was_cr => {}
                b'\n' | b'\r' => self.end_line(&mut event),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            if self.has_data {
                event(&self.data);
            }
            self.data.clear();
            self.has_data = false;
        } else if let Some(value) = self.line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data
                .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.has_data = true;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut found = Vec::new();
        for piece in pieces {
            parser.push(piece, |data| {
                found.push(String::from_utf8(data.to_vec()).unwrap());
            });
        }
        found
    }

    #[test]
    fn events_are_the_same_wherever_they_are_cut() {
        let stream = "\u{feff}: hello\n\ndata: {\"a\":\"\u{e9}\u{4f60}\"}\n\nid: 3\r\ndata:two\r\ndata: lines\r\n\r\n\
                      event: x\rdata: cr\r\rdata: [DONE]\n\n";
        let bytes = stream.as_bytes();
        let whole = parse([bytes]);
        assert_eq!(
            whole,
            ["{\"a\":\"\u{e9}\u{4f60}\"}", "two\nlines", "cr", "[DONE]"]
        );
        for i in 0..=bytes.len() {
            for j in i..=bytes.len() {
                let pieces = [&bytes[..i], &bytes[i..j], &bytes[j..]];
                assert_eq!(parse(pieces), whole, "cut at {i} and {j}");
            }
        }
        assert_eq!(parse(bytes.chunks(1)), whole);
    }

    #[test]
    fn an_event_without_its_end_is_none() {
        assert!(parse([&b"data: half"[..]]).is_empty());
        assert!(parse([&b"data: half\n"[..]]).is_empty());
    }
}
