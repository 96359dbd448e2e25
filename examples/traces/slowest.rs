//! Follows the ids in spans from the slowest acknowledgement to the statement that it waited for.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::trace::SpanData;

/// The waits of the slowest unit.
#[derive(Debug)]
pub struct Slowest<'a> {
    unit: &'a SpanData,
    /// The epochs it waited for, and then its own, in the order of their beginnings.
    epochs: Vec<Epoch<'a>>,
}

/// An epoch, and all of its transactions.
#[derive(Debug)]
struct Epoch<'a> {
    span: &'a SpanData,
    transactions: Vec<&'a SpanData>,
    steps: Vec<Step<'a>>,
}

/// A wait or a statement, with its own time: a statement that was sent with others waits for those before it.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    pub name: Cow<'a, str>,
    pub took: Duration,
}

impl<'a> Slowest<'a> {
    /// Finds the slowest unit among all spans of a program; `None` if no unit has an outcome.
    pub fn find(spans: &'a [SpanData]) -> Option<Self> {
        let units = named(spans, "unit").filter(|unit| settled(unit).is_some());
        let unit = units.max_by_key(|unit| acknowledged(unit))?;
        // A unit and its epoch have no common parent, because an epoch serves many: they refer to each other.
        let number = text(unit, "epoch")?;
        let own = named(spans, "epoch").find(|epoch| text(epoch, "number").as_ref() == Some(&number))?;
        // Other epochs came first: in its lane, or in any lane if the unit was held.
        let held = unit.events.iter().any(|event| event.name.starts_with("unit held"));
        let lane = text(own, "lane");
        let mut epochs: Vec<_> = named(spans, "epoch")
            .filter(|epoch| epoch.end_time > unit.start_time && epoch.start_time <= own.start_time)
            .filter(|epoch| held || text(epoch, "lane") == lane)
            .map(|epoch| Epoch::new(spans, epoch))
            .collect();
        epochs.sort_by_key(|epoch| epoch.span.start_time);
        Some(Self { unit, epochs })
    }

    /// The wait or the statement that took longest.
    pub fn step(&self) -> Option<&Step<'a>> {
        self.epochs.iter().flat_map(|epoch| &epoch.steps).max_by_key(|step| step.took)
    }

    /// From the unit's acceptance to its outcome.
    pub fn took(&self) -> Duration {
        acknowledged(self.unit)
    }
}

impl<'a> Epoch<'a> {
    fn new(spans: &'a [SpanData], span: &'a SpanData) -> Self {
        let transactions: Vec<_> = within(spans, span).filter(|span| span.name == "transaction").collect();
        let parents = transactions.iter().copied().chain([span]);
        let mut children: Vec<_> = parents.flat_map(|parent| within(spans, parent)).collect();
        children.retain(|span| span.name == "statement" || span.name.ends_with("_wait"));
        children.sort_by_key(|span| span.end_time);
        let mut before = span.start_time;
        let steps = children.into_iter().map(|span| {
            let took = between(span.start_time.max(before), span.end_time);
            before = span.end_time;
            Step { name: text(span, "name").unwrap_or(Cow::Borrowed(&*span.name)), took }
        });
        Self { span, steps: steps.collect(), transactions }
    }
}

/// A unit, the epochs that ended its wait, their transactions, and the steps of these.
impl fmt::Display for Slowest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |span, name| text(span, name).unwrap_or_default();
        let mut show = |took: Duration, depth: usize, what: &str| {
            writeln!(f, "{:8.1} ms  {:depth$}{what}", took.as_secs_f64() * 1e3, "", depth = 2 * depth)
        };
        let length = |span: &SpanData| between(span.start_time, span.end_time);
        let unit = self.unit;
        show(self.took(), 0, &format!("unit {} of {} rows, until its outcome", of(unit, "number"), of(unit, "rows")))?;
        let longest = self.step().map(|step| step.took);
        for Epoch { span, transactions, steps } in &self.epochs {
            let own = if text(span, "number") == text(unit, "epoch") { "its own" } else { "before its own" };
            let (number, lane) = (of(span, "number"), of(span, "lane"));
            show(length(span), 1, &format!("epoch {number} in lane {lane}, {} units, {own}", of(span, "units")))?;
            for transaction in transactions {
                show(length(transaction), 2, &format!("transaction {}", of(transaction, "attempt")))?;
            }
            for step in steps {
                let mark = if Some(step.took) == longest { "  <- here" } else { "" };
                show(step.took, 3, &format!("{}{mark}", step.name))?;
            }
        }
        Ok(())
    }
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> impl Iterator<Item = &'a SpanData> {
    spans.iter().filter(move |span| span.name == name)
}

fn within<'a>(spans: &'a [SpanData], parent: &SpanData) -> impl Iterator<Item = &'a SpanData> {
    let parent = parent.span_context.span_id();
    spans.iter().filter(move |span| span.parent_span_id == parent)
}

/// The time of a unit's outcome.
fn settled(unit: &SpanData) -> Option<SystemTime> {
    unit.events.iter().find(|event| event.name == "unit settled").map(|event| event.timestamp)
}

fn acknowledged(unit: &SpanData) -> Duration {
    settled(unit).map(|settled| between(unit.start_time, settled)).unwrap_or_default()
}

fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// An attribute; the last value, because a unit has the id of each attempt.
fn text<'a>(span: &'a SpanData, attribute: &str) -> Option<Cow<'a, str>> {
    span.attributes.iter().rev().find(|known| known.key.as_str() == attribute).map(|known| known.value.as_str())
}
