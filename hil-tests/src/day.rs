//! A small seeded model of a person's day: rest, walk, sleep, and vitals that follow.
//!
//! Not physiology, but the same kind of curve: targets by activity, a slow drift towards them, breathing-sized noise. The same
//! seed gives the same day.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What the person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Sitting, reading, eating.
    Rest,
    /// Walking about.
    Walk,
    /// Asleep.
    Sleep,
}

/// Vitals at one moment, in the units that their names say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Beats a minute.
    pub heart_rate_per_min: f64,
    /// Arterial oxygen saturation.
    pub oxygen_saturation_percent: f64,
    /// Core temperature.
    pub temperature_cel: f64,
    /// Systolic pressure.
    pub systolic_mmhg: f64,
    /// Diastolic pressure.
    pub diastolic_mmhg: f64,
    /// Body weight.
    pub weight_kg: f64,
}

/// One person's day, a second at a time.
#[derive(Debug)]
pub struct Day {
    rng: StdRng,
    activity: Activity,
    activity_left_s: u32,
    base: Moment,
    now: Moment,
    /// A recorded heart rate, replayed in place of the modelled one.
    capture: Option<(Vec<f64>, usize)>,
}

impl Day {
    /// A day of a person who differs by seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let base = Moment {
            heart_rate_per_min: rng.random_range(58.0..74.0),
            oxygen_saturation_percent: rng.random_range(95.5..98.5),
            temperature_cel: rng.random_range(36.2..36.8),
            systolic_mmhg: rng.random_range(112.0..134.0),
            diastolic_mmhg: rng.random_range(68.0..84.0),
            weight_kg: rng.random_range(54.0..96.0),
        };
        Self { rng, activity: Activity::Rest, activity_left_s: 5, base, now: base, capture: None }
    }

    /// Replays a recorded heart rate (beats a minute) from one of its moments on, again and again.
    pub fn replay_heart_rate(&mut self, beats_per_min: Vec<f64>) {
        if !beats_per_min.is_empty() {
            let start = self.rng.random_range(0..beats_per_min.len());
            self.capture = Some((beats_per_min, start));
        }
    }

    /// What the person does now.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// One second later.
    pub fn step(&mut self) -> Moment {
        if self.activity_left_s == 0 {
            // A demo lasts a minute: activities change in seconds where life takes hours.
            (self.activity, self.activity_left_s) = match self.rng.random_range(0..3) {
                0 => (Activity::Rest, self.rng.random_range(8..20)),
                1 => (Activity::Walk, self.rng.random_range(6..15)),
                _ => (Activity::Sleep, self.rng.random_range(10..25)),
            };
        }
        self.activity_left_s -= 1;
        let (beats, pressure, temperature) = match self.activity {
            Activity::Rest => (0.0, 0.0, 0.0),
            Activity::Walk => (38.0, 14.0, 0.3),
            Activity::Sleep => (-9.0, -10.0, -0.3),
        };
        let (base, now, rng) = (&self.base, &mut self.now, &mut self.rng);
        let mut towards = |value: &mut f64, target: f64, pace: f64, noise: f64| {
            *value += (target - *value) * pace + rng.random_range(-noise..noise);
        };
        towards(&mut now.heart_rate_per_min, base.heart_rate_per_min + beats, 0.12, 1.4);
        towards(&mut now.oxygen_saturation_percent, base.oxygen_saturation_percent, 0.2, 0.35);
        towards(&mut now.temperature_cel, base.temperature_cel + temperature, 0.02, 0.02);
        towards(&mut now.systolic_mmhg, base.systolic_mmhg + pressure, 0.1, 1.8);
        towards(&mut now.diastolic_mmhg, base.diastolic_mmhg + pressure / 2.0, 0.1, 1.2);
        towards(&mut now.weight_kg, base.weight_kg, 0.5, 0.04);
        now.oxygen_saturation_percent = now.oxygen_saturation_percent.min(100.0);
        if let Some((beats, at)) = &mut self.capture {
            *at = (*at + 1) % beats.len();
            now.heart_rate_per_min = beats.get(*at).copied().unwrap_or(now.heart_rate_per_min);
        }
        *now
    }
}

/// Reads a capture: a CSV whose header has a column `heart_rate_per_min`.
pub fn read_capture(csv: &str) -> anyhow::Result<Vec<f64>> {
    let mut lines = csv.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split(',')
        .position(|name| name.trim() == "heart_rate_per_min")
        .ok_or_else(|| anyhow::anyhow!("the capture's header has no column heart_rate_per_min"))?;
    let beats: Vec<f64> = lines
        .filter_map(|line| line.split(',').nth(column)?.trim().parse().ok())
        .filter(|beats: &f64| (20.0..=250.0).contains(beats))
        .collect();
    anyhow::ensure!(!beats.is_empty(), "the capture has no heart rate between 20 and 250 a minute");
    Ok(beats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_day_and_another_seed_another() {
        let day = |seed| {
            let mut day = Day::new(seed);
            (0..100).map(|_| day.step().heart_rate_per_min.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(day(1), day(1));
        assert_ne!(day(1), day(2));
    }

    #[test]
    fn vitals_stay_plausible_for_a_day() {
        for seed in 0..5 {
            let mut day = Day::new(seed);
            for _ in 0..86_400 {
                let now = day.step();
                assert!((35.0..=150.0).contains(&now.heart_rate_per_min), "{now:?}");
                assert!((85.0..=100.0).contains(&now.oxygen_saturation_percent), "{now:?}");
                assert!((35.0..=39.0).contains(&now.temperature_cel), "{now:?}");
                assert!(
                    (85.0..=180.0).contains(&now.systolic_mmhg) && now.diastolic_mmhg < now.systolic_mmhg,
                    "{now:?}"
                );
            }
        }
    }

    #[test]
    fn a_capture_replaces_the_heart_rate() {
        let beats =
            read_capture("time_local,heart_rate_per_min\n2016-04-01T07:54:00,93\nx,999\n2016-04-01T07:54:05,91\n")
                .unwrap();
        assert_eq!(beats, [93.0, 91.0]);
        let mut day = Day::new(3);
        day.replay_heart_rate(beats);
        for _ in 0..10 {
            assert!([93.0, 91.0].contains(&day.step().heart_rate_per_min));
        }
        assert!(read_capture("a,b\n1,2\n").is_err());
    }
}
