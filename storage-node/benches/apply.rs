//! What applying costs: blocks that were ordered go into a shard on a real file, one core, made durable every 8 MiB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    dead_code,
    unreachable_pub,
    missing_docs
)]

#[path = "support/homes.rs"]
mod homes;
#[path = "../tests/support/people.rs"]
mod people;

use std::time::Instant;

use ehe_node::shard::block_of_runs;
use homes::{Home, MIDNIGHT, Shard, cpu_seconds, row};

const HOMES: usize = 8;

fn main() {
    // Events of a run, runs of a block, blocks, what it stands for.
    for (events, runs, blocks, what, target) in [
        (256usize, 32usize, 24usize, "backlogs in runs of 256", Some(60_000.0f64)),
        (1, 512, 96, "512 runs of one event a block", Some(12_000.0)),
    ] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut shard = Shard::open(dir.path());
        let mut homes: Vec<_> = (0..HOMES).map(|_| Home::new(&mut shard, MIDNIGHT)).collect();
        let wraps = homes.iter_mut().map(|home| {
            let wrap = home.new_day(MIDNIGHT);
            home.run(&[wrap])
        });
        let wraps = wraps.collect();
        shard.apply(block_of_runs(MIDNIGHT, wraps));
        let seen = shard.checkpoint();
        homes.iter_mut().for_each(|home| home.saw(seen.clone()));
        let body = [5; 256];
        let body_hash = ehe::id::Hash(<sha2::Sha256 as sha2::Digest>::digest(body).into());
        let mut made = 0u64;
        let ordered: Vec<_> = (0..blocks)
            .map(|_| {
                let runs = (0..runs).map(|n| {
                    let home = &mut homes[n % HOMES];
                    let sealed = (0..events).map(|_| {
                        made += 1;
                        // Fifteen seconds each in the life of its home, all of one day.
                        let at = MIDNIGHT.plus_ms((made / HOMES as u64 * 15_000) % 86_400_000);
                        home.opaque(&body, body_hash, at)
                    });
                    let sealed = sealed.collect();
                    home.opaque_run(sealed, &seen)
                });
                block_of_runs(MIDNIGHT.plus_ms(86_400_000), runs.collect())
            })
            .collect();
        let (before, start, cpu) = (shard.leaves(), Instant::now(), cpu_seconds());
        for block in ordered {
            shard.apply(block);
        }
        shard.make_durable();
        let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        assert_eq!(shard.leaves() - before, (runs * blocks) as u64, "every run was admitted");
        let per_second = made as f64 / took;
        row(
            &format!("apply, {what}"),
            &target.map_or("–".into(), |target| format!("≥ {target:.0} EHE/s")),
            &format!("{per_second:.0} EHE/s"),
            target.map(|target| per_second >= target),
            &format!(
                "{made} events of 256 bytes in {took:.2} s, syncs included; {cpu:.2} s of a core, {:.0} EHE/s of one",
                made as f64 / cpu
            ),
        );
    }
}
