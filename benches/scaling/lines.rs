//! JSON lines to units, on one thread: what a loader does before it submits. The lines are those of the sample.

use std::io::Cursor;
use std::time::Instant;

use ::graphsink::loader::{Input, Sample, Units};
use serde_json::{Value, json};

use crate::table::median;
use graphsink_benches::contestant::Result;

/// An arbitrary number: the same lines in every round.
const SEED: u64 = 0x6c69_6e65;

/// Reads so many lines in each round.
pub(crate) fn measure(lines: usize, rounds: usize) -> Result<Value> {
    let mut text = Vec::new();
    std::io::copy(&mut Sample::new(SEED, lines as u64).into_reader(), &mut text)?;
    let bytes_per_line = text.len() / lines;
    let (mut micros, mut units) = (Vec::new(), 0);
    for _ in 0..rounds {
        let input = Input::Reader { name: "sample".to_owned(), reader: Box::new(Cursor::new(text.clone())) };
        let start = Instant::now();
        units = 0;
        for unit in Units::new([input]).keep_records(false) {
            if unit?.content.is_err() {
                return Err("a line of the sample is bad".into());
            }
            units += 1;
        }
        micros.push(start.elapsed().as_secs_f64() * 1e6 / lines as f64);
    }
    let micros = median(&micros);
    println!(
        "lines to units: {micros:.2} µs a line of {bytes_per_line} bytes ({lines} lines, {units} units, one thread)"
    );
    Ok(json!({ "lines": lines, "units": units, "bytes_per_line": bytes_per_line, "micros_per_line": micros }))
}
