//! Timing, and the line that a row is printed as.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Rounds of one measurement; the quickest counts.
const ROUNDS: u32 = 12;
/// How long one round takes at least.
const ROUND: Duration = Duration::from_millis(60);

/// What this thread has had of the processor: other programs then slow a measurement down much less.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Seconds of the processor that one call takes.
pub(crate) fn seconds<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut calls = 1u32;
    let round = |call: &mut dyn FnMut() -> T, calls: u32| {
        let start = processor_time();
        for _ in 0..calls {
            black_box(call());
        }
        processor_time() - start
    };
    while round(&mut call, calls) < ROUND {
        calls *= 2;
    }
    let best = (0..ROUNDS).map(|_| round(&mut call, calls)).min().unwrap();
    best.as_secs_f64() / f64::from(calls)
}

/// One line of the table.
pub(crate) struct Row<'a> {
    pub(crate) what: &'a str,
    /// Units a second that are asked for, if any are.
    pub(crate) target: Option<f64>,
    pub(crate) unit: &'a str,
    /// Units a second.
    pub(crate) rate: f64,
    pub(crate) place: String,
}

impl Row<'_> {
    pub(crate) fn print(self) {
        let per_second = |rate: f64| format!("{} {}/s", grouped(rate.round() as u64), self.unit);
        let target = self.target.map_or("–".into(), |target| format!("≥ {}", per_second(target)));
        let met = self.target.map_or(serde_json::Value::Null, |target| (self.rate >= target).into());
        println!(
            "{}",
            serde_json::json!({
                "group": "ehe, one core", "what": self.what, "target": target,
                "measured": per_second(self.rate), "met": met, "where": self.place,
            })
        );
    }
}

/// Shares of a whole, in percent, of parts that were timed alone; what is left over is named `rest`.
pub(crate) fn shares(whole: f64, parts: &[(&str, f64)], rest: &str) -> String {
    let percent = |part: f64| (part / whole * 100.0).round() as u64;
    let mut text: Vec<String> = parts.iter().map(|(name, part)| format!("{name} {} %", percent(*part))).collect();
    let known: f64 = parts.iter().map(|(_, part)| part).sum();
    text.push(format!("{rest} {} %", percent((whole - known).max(0.0))));
    format!("{:.1} µs: {}", whole * 1e6, text.join(", "))
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
