//! Figures in few characters.

use std::time::Duration;

use crate::ingest::number::grouped;

/// A duration with about three digits: latencies are known to 3 %.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..0.01 => format!("{:.2} ms", seconds * 1e3),
        0.01..0.1 => format!("{:.1} ms", seconds * 1e3),
        0.1..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..100.0 => format!("{seconds:.1} s"),
        _ => format!("{} s", grouped(seconds as u64)),
    }
}

/// A number per second, without its unit.
pub fn rate(per_second: f64) -> String {
    // A rare event is not shown as none.
    if per_second > 0.0 && per_second < 1.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

/// Bytes in a fitting unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64 / 1024.0, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}
