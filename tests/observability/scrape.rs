//! A parser of Prometheus' text format, as far as the exporter uses it.

use std::collections::{BTreeMap, BTreeSet};

/// The content of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    /// Metrics by name, without the suffixes of histograms.
    pub(crate) metrics: BTreeMap<String, Metric>,
    pub(crate) series: Vec<Series>,
}

/// A metric and its series.
#[derive(Debug, Default)]
pub(crate) struct Metric {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// The labels of all its series, except for that of buckets.
    pub(crate) labels: BTreeSet<String>,
}

/// A line with a value.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                let metric = scrape.metrics.entry(name.to_owned()).or_default();
                match what {
                    "HELP" => words.next().unwrap_or_default().clone_into(&mut metric.help),
                    "TYPE" => words.next().unwrap().clone_into(&mut metric.kind),
                    other => panic!("{other} in {line}"),
                }
            } else {
                scrape.series.push(series(line));
            }
        }
        for series in &scrape.series {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.name.strip_suffix(suffix));
            let name = family.filter(|name| scrape.metrics.contains_key(*name)).unwrap_or(&series.name);
            let metric = scrape.metrics.get_mut(name).unwrap_or_else(|| panic!("{name} has no TYPE"));
            metric.labels.extend(series.labels.keys().filter(|label| *label != "le").cloned());
        }
        scrape
    }

    /// The sum of all series with these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |series: &&Series| {
            series.name == name
                && labels.iter().all(|(label, value)| series.labels.get(*label).is_some_and(|is| is == value))
        };
        self.series.iter().filter(fits).map(|series| series.value).sum()
    }
}

fn series(line: &str) -> Series {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) =
        series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
    // No label here contains a comma or a quote.
    let pairs = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap());
    let labels = pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect();
    Series { name: name.to_owned(), labels, value: value.parse().unwrap() }
}
