//! Distributions of values: latencies and sizes, counted in buckets whose width grows with the value.
//!
//! Recording is one relaxed addition to one counter, so that it may be done for each unit. A snapshot keeps the
//! buckets, so that two snapshots can be subtracted: for a program that runs for weeks, the change *since* an earlier
//! snapshot is the useful figure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use histogram::{AtomicHistogram, Config};
use serde::{Deserialize, Serialize};

/// Number of buckets for each power of two, as a power of two: the resolution is 1/32, or 3 %.
const GROUPING_POWER: u8 = 5;
/// Values up to 2^40, which as microseconds is twelve days.
const MAX_VALUE_POWER: u8 = 40;
const VALUE_MAX: u64 = (1 << MAX_VALUE_POWER) - 1;

/// The distribution of whole numbers, for example the rows of batches. Values are exact to 3 %.
///
/// Its JSON form also contains quantiles: `count`, `sum`, `p50`, `p90`, `p99`, `max`, and `buckets`, each with the
/// largest value of the bucket and the number of values.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let rows = engine.stats().epoch_rows;
/// println!("half of the transactions have at most {} rows, the largest has {}", rows.quantile(0.5), rows.max());
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Wire", from = "Wire")]
pub struct Distribution {
    count: u64,
    sum: u64,
    /// The largest value of each non-empty bucket, ascending, with the number of values in the bucket.
    buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// Number of values.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!(rows.count(), 4);
    /// ```
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all values.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!(rows.sum(), 30);
    /// ```
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean; 0 when there was no value.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!(rows.mean(), 7.5);
    /// ```
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The quantile for a share such as 0.99: the value that this share of all values does not exceed; 0 when there was
    /// no value.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!((rows.quantile(0.5), rows.quantile(0.9)), (2, 20));
    /// ```
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (share.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        reached.or(self.buckets.last()).map_or(0, |(value, _)| *value)
    }

    /// The largest value; 0 when there was none.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!(rows.max(), 20);
    /// ```
    #[must_use]
    pub fn max(&self) -> u64 {
        self.buckets.last().map_or(0, |(value, _)| *value)
    }

    /// The non-empty buckets: the largest value of each, ascending, with the number of values.
    ///
    /// ```
    /// # let json = r#"{"count":4,"sum":30,"buckets":[[2,2],[6,1],[20,1]]}"#;
    /// # let rows: graphsink::Distribution = serde_json::from_str(json).unwrap();
    /// // Four epochs, of 2, 2, 6 and 20 rows.
    /// assert_eq!(rows.buckets(), [(2, 2), (6, 1), (20, 1)]);
    /// ```
    #[must_use]
    pub fn buckets(&self) -> &[(u64, u64)] {
        &self.buckets
    }

    /// The values added since an earlier snapshot of the same engine.
    ///
    /// ```no_run
    /// # fn look(engine: &graphsink::Engine, before: &graphsink::Stats) {
    /// let lately = engine.stats().epoch_rows.since(&before.epoch_rows);
    /// println!("{} epochs, the largest of {} rows", lately.count(), lately.max());
    /// # }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.buckets.iter().peekable();
        let fresh = |(value, count): &(u64, u64)| {
            while before.next_if(|(earlier, _)| earlier < value).is_some() {}
            let known = before.next_if(|(earlier, _)| earlier == value).map_or(0, |(_, count)| *count);
            (*value, count.saturating_sub(known))
        };
        let buckets: Vec<_> = self.buckets.iter().map(fresh).filter(|(_, count)| *count > 0).collect();
        Self { count: buckets.iter().map(|(_, count)| count).sum(), sum: self.sum.saturating_sub(earlier.sum), buckets }
    }
}

/// The distribution of durations, exact to 3 %.
///
/// Its JSON form is a [`Distribution`] named `microseconds`.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let commit = engine.stats().commit;
/// println!("commits: mean {:?}, p99 {:?}", commit.mean(), commit.quantile(0.99));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latency {
    microseconds: Distribution,
}

impl Latency {
    /// Number of durations.
    ///
    /// ```
    /// assert_eq!(graphsink::Stats::default().commit.count(), 0);
    /// ```
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.microseconds.count()
    }

    /// The mean; zero when there was none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let waits = graphsink::Stats::default().acknowledgement;
    /// assert_eq!(waits.mean(), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.microseconds.mean() / 1e6)
    }

    /// The quantile for a share such as 0.99: the duration that this share of all does not exceed; zero when there was
    /// none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let waits = graphsink::Stats::default().acknowledgement;
    /// assert_eq!(waits.quantile(0.99), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.microseconds.quantile(share))
    }

    /// The longest; zero when there was none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let waits = graphsink::Stats::default().acknowledgement;
    /// assert_eq!(waits.max(), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.microseconds.max())
    }

    /// The values added since an earlier snapshot of the same engine.
    ///
    /// ```no_run
    /// # fn look(engine: &graphsink::Engine, before: &graphsink::Stats) {
    /// let lately = engine.stats().acknowledgement.since(&before.acknowledgement);
    /// println!("p99 {:?}, {} units", lately.quantile(0.99), lately.count());
    /// # }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { microseconds: self.microseconds.since(&earlier.microseconds) }
    }

    /// The same distribution in microseconds, with its buckets.
    ///
    /// ```
    /// let waits = graphsink::Stats::default().acknowledgement;
    /// assert_eq!(waits.microseconds().count(), waits.count());
    /// ```
    #[must_use]
    pub const fn microseconds(&self) -> &Distribution {
        &self.microseconds
    }
}

/// The serialized form of a distribution, with derived figures for the reader.
#[derive(Serialize, Deserialize)]
struct Wire {
    count: u64,
    sum: u64,
    #[serde(skip_deserializing)]
    p50: u64,
    #[serde(skip_deserializing)]
    p90: u64,
    #[serde(skip_deserializing)]
    p99: u64,
    #[serde(skip_deserializing)]
    max: u64,
    buckets: Vec<(u64, u64)>,
}

impl From<Distribution> for Wire {
    fn from(values: Distribution) -> Self {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| values.quantile(share));
        Self { p50, p90, p99, max: values.max(), count: values.count, sum: values.sum, buckets: values.buckets }
    }
}

impl From<Wire> for Distribution {
    fn from(Wire { count, sum, buckets, .. }: Wire) -> Self {
        Self { count, sum, buckets }
    }
}

/// Records values from any number of threads at once.
pub(crate) struct Recorder {
    buckets: AtomicHistogram,
    sum: AtomicU64,
}

/// Omits the buckets: there are a thousand.
impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sum", &self.sum).finish_non_exhaustive()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        let config = Config::new(GROUPING_POWER, MAX_VALUE_POWER).expect("powers in order, see their definition");
        Self { buckets: AtomicHistogram::with_config(&config), sum: AtomicU64::new(0) }
    }
}

impl Recorder {
    /// Records a value. Values beyond the largest bucket count in that bucket.
    pub(crate) fn record(&self, value: u64) {
        let value = value.min(VALUE_MAX);
        self.sum.fetch_add(value, Ordering::Relaxed);
        // Cannot fail: the value is in range.
        let _ = self.buckets.increment(value);
    }

    pub(crate) fn record_duration(&self, value: Duration) {
        self.record(u64::try_from(value.as_micros()).unwrap_or(VALUE_MAX));
    }

    pub(crate) fn snapshot(&self) -> Distribution {
        let snapshot = self.buckets.load();
        let filled = snapshot.iter().filter(|bucket| bucket.count() > 0);
        let buckets: Vec<_> = filled.map(|bucket| (bucket.end(), bucket.count())).collect();
        // Computed from the same snapshot of the buckets, so that every quantile has a bucket.
        let count = buckets.iter().map(|(_, count)| count).sum();
        Distribution { count, sum: self.sum.load(Ordering::Relaxed), buckets }
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency { microseconds: self.snapshot() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let recorder = Recorder::default();
        for value in values {
            recorder.record(value);
        }
        recorder.snapshot()
    }

    #[test]
    fn quantiles_are_within_three_percent() {
        let values = of(1..=100_000);
        assert_eq!((values.count(), values.sum()), (100_000, 5_000_050_000));
        for (share, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let found = values.quantile(share) as f64;
            assert!(found >= exact && found <= exact * 1.032, "{share}: {found} for {exact}");
        }
        assert_eq!(of([7, 7, 9]).quantile(0.5), 7, "small values are exact");
        assert_eq!((of([]).quantile(0.5), of([]).max()), (0, 0));
        assert!(of([]).mean().abs() < f64::EPSILON);
        assert_eq!(of([u64::MAX]).max(), VALUE_MAX, "values beyond the maximum count as the maximum");
    }

    #[test]
    fn the_difference_of_two_snapshots_has_the_values_in_between() {
        let recorder = Recorder::default();
        for value in [3, 1_000, 1_000] {
            recorder.record(value);
        }
        let earlier = recorder.snapshot();
        for value in [1_000, 5, 70_000] {
            recorder.record(value);
        }
        assert_eq!(recorder.snapshot().since(&earlier), of([5, 1_000, 70_000]));
        assert_eq!(earlier.since(&earlier), of([]));
    }

    #[test]
    fn a_distribution_in_json_has_its_quantiles_and_reads_back() {
        let values = of([1, 2, 3, 4_000]);
        let json = serde_json::to_value(&values).unwrap();
        assert_eq!((&json["count"], &json["p50"]), (&4.into(), &2.into()));
        assert_eq!(serde_json::from_value::<Distribution>(json).unwrap(), values);
    }
}
