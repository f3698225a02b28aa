//! How long and over how many bytes a sample goes.

use std::time::Instant;

/// A sample is repeated until it takes so long.
const LEAST_SECONDS: f64 = 2e-3;

/// Seconds of one run of a body, which is told its number, over enough runs.
pub fn seconds<E>(mut body: impl FnMut(usize) -> Result<(), E>) -> Result<(f64, usize), E> {
    let begun = Instant::now();
    for count in 1.. {
        body(count - 1)?;
        let elapsed = begun.elapsed().as_secs_f64();
        if elapsed >= LEAST_SECONDS {
            return Ok((elapsed / count as f64, count));
        }
    }
    unreachable!("time goes on")
}

/// Weights that no cache holds: eight times the last one.
pub fn rotation_bytes() -> usize {
    8 * last_cache_bytes()
}

/// The largest cache that the system tells of, or 32 MB.
fn last_cache_bytes() -> usize {
    let sizes = (0..8).filter_map(|index| {
        let file = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(file).ok()?;
        let kilobytes: usize = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kilobytes << 10)
    });
    sizes.max().unwrap_or(32 << 20)
}

/// The middle of some numbers, and their quartiles.
pub fn quartiles(numbers: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    [last.div_ceil(4), sorted.len() / 2, last - last / 4].map(|at| sorted[at.min(last)])
}
