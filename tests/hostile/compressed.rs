//! Compressed input that breaks off or is damaged ends with an error that says so, and never like a complete input.

use std::io::{Cursor, Write as _};

use graphsink::loader::{Input, ReadError, Sample, Units};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use crate::generate::{runner, seed};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Gzip,
    Zstd,
}

/// Lines, each a unit on its own, compressed in parts, with checksums.
fn stored(kind: Kind, parts: &[Vec<String>]) -> (Vec<u8>, Vec<usize>) {
    let mut stored = Vec::new();
    let mut ends = vec![0];
    for lines in parts {
        let text: String = lines.iter().map(|line| line.clone() + "\n").collect();
        match kind {
            Kind::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut stored, flate2::Compression::fast());
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap();
            }
            Kind::Zstd => {
                let mut encoder = zstd::Encoder::new(&mut stored, 1).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap();
            }
        }
        ends.push(stored.len());
    }
    (stored, ends)
}

/// The lines that were read as units, the number of malformed lines, and the error at the end.
fn read(bytes: Vec<u8>) -> (Vec<String>, u64, Option<ReadError>) {
    let (mut good, mut bad, mut failure) = (Vec::new(), 0, None);
    for unit in Units::new([Input::Reader { name: "input".to_owned(), reader: Box::new(Cursor::new(bytes)) }]) {
        assert!(failure.is_none(), "an error is the last item");
        match unit {
            Ok(unit) if unit.content.is_ok() => {
                let lines = unit.origin.lines.into_iter();
                good.extend(lines.map(|line| String::from_utf8(line.record).expect("a good line is UTF-8")));
            }
            Ok(unit) => bad += unit.origin.lines.len() as u64,
            Err(error) => failure = Some(error),
        }
    }
    (good, bad, failure)
}

fn parts() -> impl Strategy<Value = Vec<Vec<String>>> {
    (any::<u32>(), vec(1_usize..40, 1..4)).prop_map(|(seed, sizes)| {
        let mut lines = Sample::new(seed.into(), 2_000).filter(|line| !line.contains("\"unit\":"));
        sizes.into_iter().map(|size| lines.by_ref().take(size).collect()).collect()
    })
}

fn check(kind: Kind, damage: impl Fn(Kind, &[Vec<String>], Index) -> TestCaseResult) {
    let seed = seed("compressed");
    let result = runner(seed, 300).run(&(parts(), any::<Index>()), |(parts, place)| damage(kind, &parts, place));
    result.unwrap_or_else(|failure| panic!("{kind:?}: {failure}"));
}

fn broken_off(kind: Kind, parts: &[Vec<String>], place: Index) -> TestCaseResult {
    let (mut bytes, ends) = stored(kind, parts);
    let cut = place.index(bytes.len());
    bytes.truncate(cut);
    let (good, bad, failure) = read(bytes);
    let lines = parts.concat();
    prop_assert_eq!(&good[..], &lines[..good.len()], "lines before the cut are read unchanged");
    if let Some(part) = ends.iter().position(|end| *end == cut) {
        // The cut cannot be detected: the rest is a complete file of fewer parts.
        prop_assert_eq!((good.len(), bad), (parts[..part].iter().map(Vec::len).sum(), 0));
        prop_assert!(failure.is_none());
    } else if cut < 4 {
        // Too short for its kind to be detected: it is read as text, and is malformed.
        prop_assert!(bad == 1 || failure.is_some(), "{} bytes end without an error", cut);
    } else {
        prop_assert_eq!(bad, 0, "a cut line is not read as a line");
        let Some(failure) = failure else {
            return Err(TestCaseError::fail(format!("cut at {cut} of {ends:?}, without an error")));
        };
        prop_assert_eq!(failure.line, good.len() as u64, "{}", failure);
        prop_assert!(failure.to_string().starts_with("input cannot be read beyond line "), "{}", failure);
    }
    Ok(())
}

fn damaged(kind: Kind, parts: &[Vec<String>], place: Index) -> TestCaseResult {
    let (mut bytes, _) = stored(kind, parts);
    let place = place.index(bytes.len());
    bytes[place] ^= 1 << (place % 8);
    let (good, bad, failure) = read(bytes);
    if failure.is_none() && bad == 0 {
        // Some bits do not affect the content, such as the time in the header.
        prop_assert_eq!(good, parts.concat(), "byte {}: other content without an error", place);
    }
    Ok(())
}

#[test]
fn gzip_that_breaks_off_ends_with_an_error() {
    check(Kind::Gzip, broken_off);
}

#[test]
fn zstd_that_breaks_off_ends_with_an_error() {
    check(Kind::Zstd, broken_off);
}

#[test]
fn damaged_gzip_is_read_unchanged_or_ends_with_an_error() {
    check(Kind::Gzip, damaged);
}

#[test]
fn damaged_zstd_is_read_unchanged_or_ends_with_an_error() {
    check(Kind::Zstd, damaged);
}

#[test]
fn garbage_after_a_compressed_part_is_an_error() {
    for kind in [Kind::Gzip, Kind::Zstd] {
        for garbage in [&b"x"[..], b"{}\n", b"\x1f", b"\x1f\x8b", b"\x28\xb5", b"more than a header is long"] {
            let lines: Vec<String> = Sample::new(1, 2).collect();
            let (mut bytes, _) = stored(kind, &[lines]);
            bytes.extend_from_slice(garbage);
            let (_, bad, failure) = read(bytes);
            assert!(failure.is_some() || bad > 0, "{kind:?} followed by {garbage:?}: no error");
        }
    }
}
