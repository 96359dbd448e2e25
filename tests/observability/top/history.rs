//! Rates from totals: which answers are compared, and which are not.

use std::time::Duration;

use graphsink::Stats;

use super::report;
use crate::format::rate;
use crate::history::{History, Rate};

#[test]
fn a_history_of_samples_has_rates_peaks_and_gaps() {
    let mut history = History::default();
    let answer = |history: &mut History, at: u64, mentions: u64| {
        history.absorb(
            Duration::from_secs(at),
            Ok(report(|stats| {
                stats.mentions.received = mentions;
                stats.entities.received = 2 * mentions;
            })),
        );
    };
    assert!(history.lately().is_none() && history.latest().is_none());
    // Events before the first answer have no rate.
    answer(&mut history, 10, 1_000);
    assert_eq!((history.rate(), history.rates().count()), (Rate::default(), 0));
    answer(&mut history, 12, 1_200);
    history.absorb(Duration::from_secs(14), Err("gone".to_owned()));
    history.absorb(Duration::from_secs(15), Err("still gone".to_owned()));
    let lost = history.lost().unwrap();
    assert_eq!((lost.since, &*lost.error), (Duration::from_secs(14), "still gone"));
    answer(&mut history, 16, 1_240);
    assert!(history.lost().is_none());
    let of = |mentions: f64| Rate { mentions, rows: 3.0 * mentions };
    assert_eq!(history.rates().collect::<Vec<_>>(), [Some(of(10.0)), None, None, Some(of(100.0))]);
    assert_eq!((history.rate(), history.peak()), (of(10.0), of(100.0)));
    history.reset_peak();
    assert_eq!(history.peak(), of(10.0));

    let mentions = |stats: &Stats| stats.mentions.received;
    let lately = history.lately().unwrap();
    assert_eq!((lately.window(), lately.per_second(mentions)), (Duration::from_secs(6), 40.0));
    // The window moves on, and keeps at least the last two answers.
    answer(&mut history, 22, 1_840);
    assert_eq!(history.lately().unwrap().window(), Duration::from_secs(10));
    answer(&mut history, 122, 1_940);
    let lately = history.lately().unwrap();
    assert_eq!((lately.window(), lately.per_second(mentions)), (Duration::from_secs(100), 1.0));
    // Two answers at the same time have no rate between them.
    answer(&mut history, 122, 1_950);
    assert_eq!(history.rate(), of(1.0));
}

#[test]
fn another_engine_starts_the_history_over() {
    let grown = |stats: &mut Stats| {
        stats.units_submitted = 500;
        stats.epochs = 7;
        stats.mentions.received = 500;
        stats.mentions.inserted = 500;
    };
    let falls: [fn(&mut Stats); 4] = [
        |stats| *stats = Stats::default(),
        |stats| stats.units_submitted = 499,
        |stats| stats.epochs = 6,
        |stats| stats.mentions.inserted = 499,
    ];
    for fall in falls {
        let mut history = History::default();
        history.absorb(Duration::from_secs(1), Ok(report(|_| {})));
        history.absorb(Duration::from_secs(2), Ok(report(grown)));
        assert_eq!((history.rate().mentions, history.peak().mentions), (500.0, 500.0));
        let fallen = report(|stats| {
            grown(stats);
            fall(stats);
        });
        history.absorb(Duration::from_secs(3), Ok(fallen.clone()));
        assert_eq!((history.rate(), history.peak(), history.rates().count()), (Rate::default(), Rate::default(), 0));
        assert_eq!(history.latest(), Some(&fallen));
        let lately = history.lately().unwrap();
        assert_eq!((lately.window(), lately.per_second(|stats| stats.mentions.received)), (Duration::ZERO, 0.0));
    }
    // Figures that are computed from totals may decrease.
    let mut history = History::default();
    history.absorb(Duration::from_secs(1), Ok(report(grown)));
    history.absorb(
        Duration::from_secs(2),
        Ok(report(|stats| {
            grown(stats);
            stats.mentions.unchanged = 9;
        })),
    );
    let lately = history.lately().unwrap();
    assert_eq!(rate(lately.per_second(|stats| 1_000 - stats.mentions.unchanged)), "0");
    assert_eq!(history.rates().count(), 1);
}
