//! Pictures of made-up engines: of any size, with rare figures, and as SVG.

use std::time::Duration;

use graphsink::Stats;
use serde_json::json;

use super::{USUAL, assert_says, cells, report, scene, screen};
use crate::format::{bytes, rate};
use crate::history::History;
use crate::svg::svg;
use crate::view::Scene;

#[test]
fn each_distribution_of_an_engine_has_its_own_quantiles_in_the_picture() {
    // A hundred values each: most of them, the hundredth from the end, and the largest.
    let spread = |[most, some, largest]: [u64; 3]| json!({ "count": 100, "sum": 1, "buckets": [[most, 98], [some, 1], [largest, 1]] });
    let mut stats = serde_json::to_value(Stats::default()).unwrap();
    for table in ["entities", "connections", "mentions"] {
        stats[table]["batch_rows"] = spread([2, 6, 20]);
    }
    stats["epoch_rows"] = spread([300, 4_000, 50_000]);
    let latencies = ["acknowledgement", "commit", "lane_wait", "pool_wait", "lock_wait", "admission_wait"];
    for latency in latencies {
        stats[latency] = json!({ "microseconds": spread([1_500, 25_000, 3_000_000]) });
    }
    let stats: Stats = serde_json::from_value(stats).unwrap();
    let mut history = History::default();
    history.absorb(Duration::ZERO, Ok(report(|made_up| *made_up = stats)));
    let screen = screen(&scene(&history, Duration::ZERO), USUAL);
    for name in ["entities", "connections", "mentions"] {
        assert_says(&screen, &format!("batch {name} 2 6 20 "));
    }
    assert_says(&screen, "transaction rows 300 4,000 50,000 ");
    for latency in latencies {
        assert_says(&screen, &format!("{} 1.50 ms 25.0 ms 3.0 s ", latency.replace('_', " ")));
    }
}

#[test]
fn a_picture_of_any_size_is_drawn_without_panic() {
    let mut histories = [(); 4].map(|()| History::default());
    histories[1].absorb(Duration::ZERO, Err("refused".to_owned()));
    for history in &mut histories[2..] {
        history.absorb(Duration::ZERO, Ok(report(|_| {})));
    }
    histories[3].absorb(
        Duration::from_secs(1),
        Ok(report(|stats| {
            stats.mentions.received = u64::MAX / 8;
            stats.units_committed = u64::MAX / 8;
        })),
    );
    for history in &histories {
        for width in (0..12).chain([35, 79, 120, 300]) {
            for height in (0..8).chain(20..28).chain([40, 80]) {
                cells(&scene(history, Duration::from_secs(1)), (width, height));
            }
        }
    }
    assert_says(&screen(&scene(&histories[0], Duration::ZERO), USUAL), "waiting for the first answer");
    assert_says(&screen(&scene(&histories[1], Duration::ZERO), (80, 5)), "refused");
    let paused = Scene { paused: true, ..scene(&histories[3], Duration::from_secs(1)) };
    assert_says(&screen(&paused, USUAL), "paused");
    assert_says(&screen(&paused, (10, 5)), "q quit");
}

#[test]
fn a_picture_becomes_svg_with_its_words_bars_and_colours() {
    let mut history = History::default();
    for (second, mentions) in (0..).zip([0, 100, 200, 500]) {
        history.absorb(Duration::from_secs(second), Ok(report(|stats| stats.mentions.received = mentions)));
    }
    let scene = Scene { address: "<&>", ..scene(&history, Duration::from_secs(3)) };
    let cells = cells(&scene, USUAL);
    assert_eq!([77, 78, 79].map(|column| cells[(column, 2)].symbol()), [" ", " ", "█"], "the newest at the right");
    let svg = svg(&cells);
    let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    let all = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    let words: Vec<_> = all("text").filter_map(|node| node.text()).collect();
    for word in ["<&>", "mentions/s:", "300,", "connections", "acknowledgement", "quit"] {
        assert!(words.contains(&word), "{word}: {words:?}");
    }
    assert!(words.iter().all(|word| !word.contains(['█', '▃', '─'])), "{words:?}");
    // With two rows of bars, the last rate fills one column, and each rate before it a third of one.
    let bars: f64 = all("rect")
        .filter(|node| node.attribute("fill") == Some("#7fb36a"))
        .map(|node| ["width", "height"].map(|side| node.attribute(side).unwrap().parse::<f64>().unwrap()))
        .map(|[width, height]| width * height)
        .sum();
    let column = 2.0 * 17.0 * 8.4;
    assert!((bars / column - 5.0 / 3.0).abs() < 0.1, "{bars}");
}

#[test]
fn figures_are_formatted_in_few_characters() {
    let short = |micros| crate::format::short(Duration::from_micros(micros));
    assert_eq!(
        [0, 450, 9_990, 12_340, 999_000, 1_250_000, 1_500_000_000].map(short),
        ["0.00 ms", "0.45 ms", "9.99 ms", "12.3 ms", "999 ms", "1.2 s", "1,500 s"]
    );
    assert_eq!([0.0, 0.25, 1.4, 1_234.5].map(rate), ["0", "0.2", "1", "1,235"]);
    assert_eq!([0, 1_023, 1_536, 64 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]);
}
