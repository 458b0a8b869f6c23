//! A page with the table and the plots of a sweep, in one file without scripts.

use std::fmt::Write;

use crate::error::LoadError;
use crate::plot::{Line, svg};
use crate::quantile::Spread;
use crate::summary::Summary;
use crate::table;

const STYLE: &str = "body{font:15px sans-serif;max-width:1180px;margin:2em auto;padding:0 1em}\
                     pre{background:#f4f4f4;padding:1em;overflow-x:auto}svg{max-width:100%}";

/// Axes of a plot, and its lines: a name, and what of a summary it shows.
type Plot<'a> = (
    &'a str,
    &'a str,
    Vec<(&'a str, &'a dyn Fn(&Summary) -> f64)>,
);

/// The page of one load or several.
pub(crate) fn html(title: &str, summaries: &[Summary]) -> Result<String, LoadError> {
    let x = |s: &Summary| match (s.offered_rate, s.n_clients) {
        (Some(rate), _) => rate,
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        (None, n) => n.unwrap_or_default() as f64,
    };
    let is_open = summaries.iter().any(|s| s.offered_rate.is_some());
    let x_name = if is_open {
        "requests offered a second"
    } else {
        "clients"
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\
         <style>{STYLE}</style><h1>{0}</h1>\n",
        escape(title)
    );
    for (name, y_name, lines) in plots(summaries) {
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|(name, y)| Line {
                name: name.to_owned(),
                points: summaries.iter().map(|s| (x(s), y(s))).collect(),
            })
            .collect();
        page.push_str(&svg(name, x_name, y_name, &lines)?);
        page.push('\n');
    }
    // Writing to a string does not fail.
    writeln!(
        page,
        "<pre>{}</pre>\n<p>Latencies count from when a request was meant to be sent.</p></html>",
        escape(&table::text(title, summaries))
    )
    .ok();
    Ok(page)
}

fn plots(summaries: &[Summary]) -> Vec<Plot<'static>> {
    macro_rules! latency {
        ($name:literal, $field:ident) => {
            (
                $name,
                "milliseconds",
                vec![
                    ("p50", &|s: &Summary| s.$field.p50),
                    ("p90", &|s: &Summary| s.$field.p90),
                    ("p99", &|s: &Summary| s.$field.p99),
                ],
            )
        };
    }
    let mut plots: Vec<Plot<'static>> = Vec::new();
    let has = |get: fn(&Summary) -> &Spread| summaries.iter().any(|s| get(s).n > 0);
    if has(|s| &s.ttft_ms) {
        plots.push(latency!("Time to first token", ttft_ms));
    }
    if has(|s| &s.tpot_ms) {
        plots.push(latency!("Time of each further token", tpot_ms));
    }
    plots.push(latency!("Whole answer", e2e_ms));
    plots.push((
        "Output",
        "tokens a second",
        vec![("output tokens", &|s: &Summary| s.output_tokens_per_s)],
    ));
    let mut requests: Plot<'static> = ("Requests", "requests a second", Vec::new());
    requests.2.push(("done", &|s: &Summary| s.requests_per_s));
    if summaries.iter().any(|s| s.goodput_per_s.is_some()) {
        requests.2.push(("met the SLO", &|s: &Summary| {
            s.goodput_per_s.unwrap_or_default()
        }));
    }
    plots.push(requests);
    plots
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
