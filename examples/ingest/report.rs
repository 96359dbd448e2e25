//! The report of a load as one HTML file: charts over time, the outcome, the settings. It needs no external resources,
//! and also contains its numbers as JSON.

mod chart;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::ingest::number::grouped;
use crate::ingest::recording::Moment;
use chart::Chart;

/// Minimum and maximum number of spans of a chart. Within these limits each span has two transactions: with more spans,
/// a slow load would look as if it stalled repeatedly.
const SPANS: (u64, u64) = (12, 60);

/// Light or dark, following the reader's system. The colours can also be distinguished with red-green colour blindness
/// (after Okabe and Ito).
const STYLE: &str = "
:root { color-scheme: light dark; --page: #fff; --text: #222; --soft: #595959; --edge: #ddd; --grid: #e6e6e6; --bad: #b00020;
  --s0: #0072b2; --s1: #d98a00; --s2: #009e73; --s3: #b8578a; }
@media (prefers-color-scheme: dark) { :root { --page: #16181c; --text: #e4e4e4; --soft: #a5a9b0; --edge: #363a42;
  --grid: #2b2f36; --bad: #ff8a80; --s0: #56b4e9; --s1: #e6a532; --s2: #2fc39a; --s3: #e09bc3; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 1240px;
  margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .4rem; } p { margin: .3rem 0; }
.lead, .unit { color: var(--soft); } .unit { font-weight: 400; } .bad { color: var(--bad); font-weight: 600; }
.lead, .bad, code { overflow-wrap: anywhere; } td { overflow-wrap: break-word; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 1rem; align-items: start; }
section { border: 1px solid var(--edge); border-radius: 6px; padding: .8rem 1rem; min-width: 0; } .wide { grid-column: 1 / -1; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem 2.2rem; margin: 1rem 0; } .figures b { display: block; font-size: 1.45rem; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--soft); } .grid { stroke: var(--grid); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .area { fill-opacity: .8; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); } .line.s3 { stroke: var(--s3); }
.area.s0 { fill: var(--s0); } .area.s1 { fill: var(--s1); } .area.s2 { fill: var(--s2); } .area.s3 { fill: var(--s3); }
i.s0 { background: var(--s0); } i.s1 { background: var(--s1); } i.s2 { background: var(--s2); } i.s3 { background: var(--s3); }
.key { margin-right: .8rem; white-space: nowrap; }
.key i { display: inline-block; width: .75rem; height: .75rem; margin-right: .35rem; border-radius: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .22rem .5rem; border-bottom: 1px solid var(--edge); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } code { font-size: .92em; }
";
/// A browser that obeys it loads nothing and runs nothing, whatever the content.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The data of a report.
#[derive(Debug)]
pub struct Report<'a> {
    /// The summary that `--json` prints.
    pub summary: &'a Value,
    /// Names and values; no secrets.
    pub settings: &'a [(&'static str, String)],
    pub moments: &'a [Moment],
}

impl Report<'_> {
    pub fn html(&self) -> String {
        let summary = self.summary;
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
             <title>graphsink: a load</title><style>{STYLE}</style></head><body>\n<h1>graphsink: a load</h1>\n{}\n",
            self.lead()
        );
        if self.has_outcome() {
            html += &self.figures();
        }
        let (ends, charts) = charts(self.moments);
        html += "<div class=\"cards\">\n";
        if !ends.is_empty() {
            for chart in &charts {
                let Chart { title, unit, .. } = chart;
                let picture = format!("{}\n<div>{}</div>", chart.svg(&ends), chart.legend());
                html += &section(&format!("{title} <span class=\"unit\">{unit}</span>"), "", &picture);
            }
        }
        if self.has_outcome() {
            html += &section("Outcome", "", &self.outcome());
            html += &section("Results of rows", "wide", &self.rows());
        }
        if let Some(reasons) = summary["rejected_by_reason"].as_object().filter(|reasons| !reasons.is_empty()) {
            let rows = reasons.iter().map(|(rule, reason)| {
                let first = reason["first"].as_str().unwrap_or_default();
                [code(rule), whole(&reason["units"]), escaped(first)]
            });
            html += &section("Rejected", "wide", &table(&["reason", "units", "first example"], &[1], rows));
        }
        html += &section("Settings", "", &self.settings());
        let _ = writeln!(html, "</div>\n{}\n</body></html>", self.data(&ends, &charts));
        html
    }

    /// Whether the load got far enough to have a summary.
    fn has_outcome(&self) -> bool {
        self.summary["units"].is_u64()
    }

    /// A sentence about the load, and anything a reader must know first.
    fn lead(&self) -> String {
        let summary = self.summary;
        let text = |name: &str| summary[name].as_str().map(escaped);
        let mut lead = if self.has_outcome() {
            format!(
                "<p class=\"lead\">{} lines, {} units in {:.2} s; figures as of {}.</p>",
                whole(&summary["lines"]),
                whole(&summary["units"]),
                summary["seconds"].as_f64().unwrap_or_default(),
                text("as_of").unwrap_or_default()
            )
        } else {
            "<p class=\"lead\">The run ended before any unit was loaded.</p>".to_owned()
        };
        if let Some(error) = text("error") {
            let _ = write!(lead, "<p class=\"bad\">The run failed: {error}</p>");
        } else if summary["complete"] == false && summary["mode"] == "bulk" {
            lead += "<p class=\"bad\">Stopped before all was committed, so nothing was loaded.</p>";
        } else if summary["complete"] == false {
            lead += "<p class=\"bad\">Stopped before the end of the input. Run it again to load the rest.</p>";
        }
        if let Some(first) = text("first_unavailable") {
            let _ = write!(
                lead,
                "<p class=\"bad\">Some outcomes are unknown, the first is that of {first}. Run it again.</p>"
            );
        }
        lead
    }

    /// The main figures.
    fn figures(&self) -> String {
        let summary = self.summary;
        let figures = [
            (whole(&summary["mentions_per_second"]), "mentions per second"),
            (whole(&summary["rows_per_second"]), "rows per second"),
            (whole(&summary["committed"]), "units committed"),
            (whole(&summary["rejected"]), "rejected"),
            (whole(&summary["unavailable"]), "unavailable"),
            (milliseconds(&summary["acknowledgement_ms"]["p50"]), "median time to acknowledgement"),
            (milliseconds(&summary["acknowledgement_ms"]["p99"]), "until 99 % were"),
        ];
        // In bulk all units are acknowledged at the end.
        let shown = if summary["mode"] == "bulk" { figures.len() - 2 } else { figures.len() };
        let figures = &figures[..shown];
        let figure = |(value, what): &(String, &str)| format!("<div><b>{value}</b>{what}</div>");
        format!("<div class=\"figures\">{}</div>\n", figures.iter().map(figure).collect::<String>())
    }

    /// The summary's numbers, except those of tables.
    fn outcome(&self) -> String {
        let summary = self.summary;
        let of = |name: &str, text: &str| [text.to_owned(), whole(&summary[name])];
        let mut rows = vec![
            of("lines", "lines read"),
            of("units", "units"),
            of("committed", "units committed"),
            of("rejected", "units rejected"),
            of("unavailable", "units whose outcome is unknown"),
            of("transactions", "transactions"),
            of("rows_per_transaction_mean", "rows of a transaction, mean"),
            of("rows_per_transaction_max", "rows of a transaction, at most"),
            of("failed_attempts", "transactions that failed"),
            of("actor_restarts", "actors that were restarted"),
        ];
        for (phase, seconds) in
            summary["bulk"]["phases"].as_array().into_iter().flatten().map(|phase| (&phase[0], &phase[1]))
        {
            let what = format!("phase: {}", escaped(phase.as_str().unwrap_or_default()));
            rows.push([what, format!("{:.2} s", seconds.as_f64().unwrap_or_default())]);
        }
        if summary["mode"] == "bulk" {
            rows.push(["bytes written to files".to_owned(), whole(&summary["bulk"]["spilled_bytes"])]);
        } else {
            rows.extend(self.waits());
        }
        if summary["resolved"].is_object() {
            for (name, text) in [
                ("names", "names"),
                ("exact", "names found exactly"),
                ("alias", "names found as an alias"),
                ("fuzzy", "names found by similarity"),
                ("same_as_new", "names resolved to another new name"),
                ("new", "new names"),
                ("flagged", "new names to be reviewed"),
            ] {
                rows.push([text.to_owned(), whole(&summary["resolved"][name])]);
            }
        }
        table(&["what", "number or time"], &[1], rows)
    }

    /// The waiting times of transactions, and of units until their outcomes.
    fn waits(&self) -> Vec<[String; 2]> {
        let summary = self.summary;
        let mut rows = Vec::new();
        for (name, text) in [("sum", "together"), ("max", "at most")] {
            let waited = milliseconds(&summary["lock_wait_ms"][name]);
            rows.push([format!("transactions waited for locks, {text}"), waited]);
        }
        for (name, text) in [("p50", "half"), ("p90", "90 %"), ("p99", "99 %"), ("max", "all")] {
            rows.push([format!("{text} acknowledged within"), milliseconds(&summary["acknowledgement_ms"][name])]);
        }
        rows
    }

    fn rows(&self) -> String {
        let columns = ["received", "inserted", "updated", "unchanged", "coalesced"];
        let rows = ["entities", "connections", "mentions"].map(|table| {
            let [received, inserted, updated, unchanged, coalesced] =
                columns.map(|column| whole(&self.summary[table][column]));
            [table.to_owned(), received, inserted, updated, unchanged, coalesced]
        });
        let mut header = vec!["table"];
        header.extend(columns);
        let note = "Coalesced: received together with another version of the same row, and written once.";
        format!("{}<p class=\"unit\">{note}</p>", table(&header, &[1, 2, 3, 4, 5], rows))
    }

    fn settings(&self) -> String {
        table(&["setting", "value"], &[], self.settings.iter().map(|(name, value)| [code(name), code(value)]))
    }

    /// The numbers for programs. In a script's text `<` would end it, and `&` starts entities.
    fn data(&self, ends: &[f64], charts: &[Chart]) -> String {
        let charts: serde_json::Map<String, Value> = charts
            .iter()
            .map(|chart| {
                let series: serde_json::Map<String, Value> =
                    chart.series.iter().map(|(name, values)| ((*name).to_owned(), json!(values))).collect();
                (chart.title.to_owned(), Value::Object(series))
            })
            .collect();
        let settings: serde_json::Map<String, Value> =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let data = json!({ "summary": self.summary, "settings": settings, "seconds": ends, "charts": charts });
        let text = data.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        format!("<script type=\"application/json\" id=\"data\">{text}</script>")
    }
}

/// Times in seconds, and the changes since the previous time, so that the rates shown add up to the totals.
#[allow(clippy::too_many_lines)]
fn charts(moments: &[Moment]) -> (Vec<f64>, Vec<Chart>) {
    let end = moments.last().map_or(0.0, |last| last.at);
    let transactions = moments.last().map_or(0, |last| last.epoch_rows.count());
    let step = end / (transactions / 2).clamp(SPANS.0, SPANS.1) as f64;
    let mut looks: Vec<&Moment> = Vec::new();
    for moment in moments {
        if looks.last().is_none_or(|last| moment.at - last.at >= step) {
            looks.push(moment);
        }
    }
    // The remainder is added to the last span: totals must be complete.
    if let Some(last) = moments.last()
        && looks.last().is_some_and(|look| look.at < last.at)
    {
        if looks.len() > 1 {
            looks.pop();
        }
        looks.push(last);
    }
    let spans: Vec<(&Moment, &Moment)> = looks.iter().copied().zip(looks.iter().copied().skip(1)).collect();
    let rate = |total: &dyn Fn(&Moment) -> u64| -> Vec<Option<f64>> {
        let rate = |(from, to): &(&Moment, &Moment)| {
            Some(total(to).saturating_sub(total(from)) as f64 / (to.at - from.at).max(1e-6))
        };
        spans.iter().map(rate).collect()
    };
    let sizes = |share: f64| -> Vec<Option<f64>> {
        let size = |(from, to): &(&Moment, &Moment)| {
            let fresh = to.epoch_rows.since(&from.epoch_rows);
            (fresh.count() > 0).then(|| fresh.quantile(share) as f64)
        };
        spans.iter().map(size).collect()
    };
    let latencies = |share: f64| -> Vec<Option<f64>> {
        let latency = |(from, to): &(&Moment, &Moment)| {
            let fresh = to.acknowledgement.since(&from.acknowledgement);
            (fresh.count() > 0).then(|| fresh.quantile(share).as_secs_f64() * 1e3)
        };
        spans.iter().map(latency).collect()
    };
    let chart = |title, unit, series, stacked| Chart { title, unit, series, stacked };
    let charts = vec![
        chart(
            "Throughput",
            "per second",
            vec![
                ("mentions", rate(&|moment| moment.mentions)),
                ("rows of all tables", rate(&|moment| moment.received)),
            ],
            false,
        ),
        chart(
            "Results of rows over time",
            "rows per second",
            ["inserted", "updated", "unchanged", "coalesced"]
                .into_iter()
                .enumerate()
                .map(|(place, name)| (name, rate(&move |moment| moment.rows[place])))
                .collect(),
            true,
        ),
        chart(
            "Acknowledgement",
            "milliseconds from acceptance to outcome",
            vec![("p50", latencies(0.5)), ("p90", latencies(0.9)), ("p99", latencies(0.99))],
            false,
        ),
        chart("Rows of a transaction", "as received", vec![("median", sizes(0.5)), ("largest", sizes(1.0))], false),
        chart(
            "Waiting for locks",
            "seconds per second, of transactions that ended",
            vec![("waits", rate(&|moment| moment.lock_wait).into_iter().map(|rate| rate.map(|us| us / 1e6)).collect())],
            false,
        ),
        chart(
            "Rows in flight",
            "accepted and not yet answered",
            vec![("rows", spans.iter().map(|(_, to)| Some(to.rows_in_flight as f64)).collect())],
            false,
        ),
    ];
    (spans.iter().map(|(_, to)| to.at).collect(), charts)
}

fn section(title: &str, class: &str, content: &str) -> String {
    format!("<section class=\"{class}\"><h2>{title}</h2>{content}</section>\n")
}

fn table<const N: usize>(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let class = |column: usize| if right.contains(&column) { " class=\"n\"" } else { "" };
    let mut text = String::from("<div class=\"scroll\"><table><tr>");
    for (column, name) in header.iter().enumerate() {
        let _ = write!(text, "<th{}>{name}</th>", class(column));
    }
    text += "</tr>";
    for row in rows {
        text += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(text, "<td{}>{cell}</td>", class(column));
        }
        text += "</tr>\n";
    }
    text + "</table></div>"
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// Escapes arbitrary text for HTML. Characters that XML cannot contain are replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' | '\t' => safe.push(' '),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// A number without its fraction.
fn whole(value: &Value) -> String {
    grouped(value.as_f64().unwrap_or_default().round() as u64)
}

fn milliseconds(value: &Value) -> String {
    format!("{:.1} ms", value.as_f64().unwrap_or_default())
}
