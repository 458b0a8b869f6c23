//! W3C Trace Context: which trace a request belongs to.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::identity::Numbers;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of answers, of the draft of level 2.
pub(crate) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A trace, and this server's span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: u128,
    pub(crate) parent: Option<u64>,
    pub(crate) span: u64,
    /// Whether whoever began the trace records it.
    pub(crate) is_sampled: bool,
}

impl TraceContext {
    /// The trace of a request, or a new one.
    pub(crate) fn of_request(headers: &HeaderMap, numbers: &Numbers) -> Self {
        let span = numbers.next().max(1);
        let given = headers
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok());
        match given.and_then(parse) {
            Some((trace, parent, flags)) => Self {
                trace,
                parent: Some(parent),
                span,
                is_sampled: flags & 1 == 1,
            },
            None => Self {
                trace: u128::from(numbers.next().max(1)) << 64 | u128::from(numbers.next()),
                parent: None,
                span,
                is_sampled: true,
            },
        }
    }

    /// What an answer tells of it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.is_sampled)
        );
        HeaderValue::from_str(&text).ok()
    }
}

/// Trace, parent and flags. Versions to come may say more behind them.
fn parse(text: &str) -> Option<(u128, u64, u8)> {
    let is_hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let mut part = |len: usize| parts.next().filter(|part| part.len() == len).filter(is_hex);
    let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    Some((trace, parent, u8::from_str_radix(flags, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(header: &str) -> TraceContext {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, header.parse().unwrap());
        TraceContext::of_request(&headers, &Numbers::from_seed(1))
    }

    #[test]
    fn traces_go_on() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = context(text);
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled);
        let header = context.header().unwrap();
        let header = header.to_str().unwrap();
        assert!(header.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(header.ends_with("-01") && !header.contains("00f067aa0ba902b7"));
    }

    #[test]
    fn what_is_no_context_begins_a_trace() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let context = context(text);
            assert_eq!(context.parent, None, "{text}");
            assert_ne!(context.trace, 0);
        }
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(!context(unsampled).is_sampled);
    }
}
