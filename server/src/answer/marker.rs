//! Finding markers in text that is not all there yet.

/// Where the first of some markers is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole one, at these bytes.
    Whole { start: usize, end: usize },
    /// None before this byte; from there on one may begin.
    NotBefore(usize),
}

pub(super) fn find(text: &str, markers: &[&str]) -> Found {
    let whole = markers
        .iter()
        .filter_map(|marker| text.find(marker).map(|start| (start, start + marker.len())))
        .min();
    if let Some((start, end)) = whole {
        return Found::Whole { start, end };
    }
    let may_begin = |start: &usize| {
        let rest = &text[*start..];
        markers.iter().any(|marker| marker.starts_with(rest))
    };
    let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or(0);
    let first = text.len().saturating_sub(longest);
    let starts = text.char_indices().map(|(start, _)| start);
    let start = starts.skip_while(|start| *start < first).find(may_begin);
    Found::NotBefore(start.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_marker_is_found_or_waited_for() {
        let markers = ["<tool>", "[T]"];
        assert_eq!(
            find("a[T]<tool>", &markers),
            Found::Whole { start: 1, end: 4 }
        );
        assert_eq!(find("ab<to", &markers), Found::NotBefore(2));
        assert_eq!(find("ab<tox", &markers), Found::NotBefore(6));
        assert_eq!(find("é[", &markers), Found::NotBefore(2));
        assert_eq!(find("", &markers), Found::NotBefore(0));
        assert_eq!(find("abc", &[]), Found::NotBefore(3));
    }
}
