//! What a run costs before it is ordered, on one core: decoding, hashes, the strict signature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ehe::author::Strand;
use ehe::event::{CheckedEvent, Core, Event, Kind, Suite, VERSION};
use ehe::id::{AuthorId, EpochId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, Secret32};
use ehe::time::UnixMs;
use ehe::wire::{Request, Submission};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;

/// Each figure is the best of these: whatever else the machine does only ever makes one slower.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(200);

/// Time that `work` takes.
fn time<T>(mut work: impl FnMut() -> T) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let (start, mut n) = (Instant::now(), 0u32);
        while start.elapsed() < ROUND {
            black_box(work());
            n += 1;
        }
        best = best.min(start.elapsed() / n);
    }
    best
}

fn sealed(ek: &Secret32, room: RoomId, author: AuthorId, n: u64) -> CheckedEvent {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&n.to_be_bytes());
    let core = Core {
        version: VERSION,
        suite: Suite::One,
        kind: Kind::Vitals,
        room,
        author,
        epoch: EpochId([3; 16]),
        wrap: WrapId([4; 16]),
        hour: UnixMs(1_700_000_000_000).hour(),
        salt: Nonce(salt),
    };
    ehe::seal::seal(ek, core, &[7; 100]).unwrap()
}

fn submission(identity: &Identity, events: usize) -> Submission {
    let (room, ek) = (RoomId([1; 16]), kem::random_secret(&mut UnwrapErr(SysRng)));
    let events: Vec<_> = (0..events as u64).map(|n| sealed(&ek, room, identity.author_id(), n)).collect();
    let linked = Strand::new(room, StrandId([5; 8]), None).link_events(identity, &events);
    Submission { run: linked.run, events: events.into_iter().map(CheckedEvent::into_event).collect() }
}

fn main() {
    let identity = Identity::generate(&mut UnwrapErr(SysRng));
    for events in [1usize, 256] {
        let request = Request::Submit(submission(&identity, events)).to_vec();
        let Request::Submit(submission) = Request::decode(&request).unwrap() else { unreachable!() };
        let key = identity.public().sign;
        let decode = time(|| Request::decode(black_box(&request)).unwrap());
        let check = time(|| submission.events.iter().cloned().map(Event::check).all(|event| event.is_ok()));
        let run = time(|| submission.run.decode().unwrap());
        let verify = time(|| submission.run.decode().unwrap().verify(&key).unwrap()).saturating_sub(run);
        let total = decode + check + run + verify;
        let share = |part: Duration| 100 * part.as_nanos() / total.as_nanos().max(1);
        let per_second = events as u128 * 1_000_000_000 / total.as_nanos().max(1);
        println!(
            "{{\"group\":\"node\",\"what\":\"a run of {events} before it is ordered, one core, bodies of 256 bytes\",\
             \"target\":\"–\",\"measured\":\"{:.1} µs ({per_second} EHE/s)\",\"met\":null,\
             \"where\":\"frame {} %, events' headers and hashes {} %, run {} %, signature {} %\"}}",
            total.as_nanos() as f64 / 1000.0,
            share(decode),
            share(check),
            share(run),
            share(verify)
        );
    }
}
