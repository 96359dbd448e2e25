//! The measured machine.

use std::process::Command;

/// The machine, the server and the commit of the measurement.
pub fn circumstances(server: &str) -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.map_or_else(unknown, |kilobytes| format!("{:.0} GB", kilobytes as f64 / 1e6));
    let commit = git(&["describe", "--always", "--dirty"]).unwrap_or_else(unknown);
    format!("{processor}, {cores} cores, {memory}; {}; PostgreSQL {server}; commit {commit}", std::env::consts::OS)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
