//! What came of one request. All times are seconds from the beginning of the run.

use serde::Serialize;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// The connection broke before the answer was whole.
    Disconnected,
    /// Not done within the time of a request.
    Timeout,
    /// A status other than 200, with the error's code where there is one.
    Status(u16, Option<String>),
    /// The stream said that it failed.
    StreamError,
    /// The stream ended without its end.
    Truncated,
    /// An answer or event that cannot be read.
    Malformed,
    /// Counts of tokens that cannot be.
    WrongUsage,
}

impl ErrorKind {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Connect => "no connection".to_owned(),
            Self::Disconnected => "connection broken".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Status(status, None) => format!("status {status}"),
            Self::Status(status, Some(code)) => format!("status {status}, {code}"),
            Self::StreamError => "error in stream".to_owned(),
            Self::Truncated => "stream without end".to_owned(),
            Self::Malformed => "unreadable answer".to_owned(),
            Self::WrongUsage => "wrong usage".to_owned(),
        }
    }
}

/// An error with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: ErrorKind,
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let detail = detail.chars().take(300).collect();
        Self { kind, detail }
    }
}

/// Tokens as the server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub n_prompt: u64,
    pub n_output: u64,
    /// Of the prompt, from the server's cache.
    pub n_cached: u64,
}

/// One request from its intended start to its end.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of its session, and of the turn in it.
    pub session: usize,
    pub turn: usize,
    pub model: String,
    /// When it was to be sent. Latencies count from here: time that a request waits because the
    /// one before it is late is the server's, not nobody's ("coordinated omission").
    pub intended: f64,
    /// When it was sent.
    pub sent: f64,
    /// When text came, for each event with some; of an answer that is no stream, its end.
    pub tokens_at: Vec<f64>,
    /// When the last token was known to be: the event with the reason of the end.
    pub finished: f64,
    /// When all was there.
    pub ended: f64,
    pub is_stream: bool,
    pub usage: Usage,
    pub failure: Option<Failure>,
    /// What was said, for the next turn.
    pub text: String,
}

impl Outcome {
    /// From the intended start to the first token.
    #[must_use]
    pub fn ttft(&self) -> Option<f64> {
        let first = self.tokens_at.first()?;
        (self.failure.is_none() && self.is_stream).then_some(first - self.intended)
    }

    /// Time of each further token: from the first to the last, by the tokens between. The last
    /// came with the last text if every token had some, else at the end of the answer.
    #[must_use]
    pub fn tpot(&self) -> Option<f64> {
        let (first, last) = (self.tokens_at.first()?, self.tokens_at.last()?);
        let are_all_seen = self.tokens_at.len() as u64 >= self.usage.n_output;
        let last = if are_all_seen { *last } else { self.finished };
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let n_more = self.usage.n_output.saturating_sub(1) as f64;
        let is_known = self.failure.is_none() && self.is_stream && n_more > 0.0;
        is_known.then_some((last - first) / n_more)
    }

    /// Gaps between events with text.
    pub fn gaps(&self) -> impl Iterator<Item = f64> {
        let pairs = self.tokens_at.windows(2).map(|pair| pair[1] - pair[0]);
        pairs.filter(|_| self.failure.is_none())
    }

    /// From the intended start to the end.
    #[must_use]
    pub fn e2e(&self) -> Option<f64> {
        self.failure.is_none().then_some(self.ended - self.intended)
    }
}
