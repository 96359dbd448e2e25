//! The pause between two attempts.

use std::time::Duration;

use uuid::Uuid;

/// The first pause; it doubles with each further attempt.
const FIRST: Duration = Duration::from_millis(10);
/// The longest pause. In one minute the whole engine asks a server that is down about 125 times.
const LONGEST: Duration = Duration::from_secs(1);

/// An exponential pause with full jitter, so that writers that failed together do not retry together.
pub(in crate::store) fn backoff(attempts: u32) -> Duration {
    let ceiling = FIRST.saturating_mul(1 << attempts.min(16)).min(LONGEST);
    // The last four bytes of a version 7 id are random.
    let random = Uuid::now_v7().as_u128() as u32;
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        let pauses: Vec<Duration> = (0..200).map(|_| backoff(30)).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        assert!((0..200).all(|_| backoff(1) <= FIRST * 2));
        let longest = |attempts| (0..200).map(|_| backoff(attempts)).max();
        assert!(longest(1) > Some(FIRST) && longest(3) > Some(FIRST * 4) && longest(30) > Some(LONGEST / 2));
    }
}
