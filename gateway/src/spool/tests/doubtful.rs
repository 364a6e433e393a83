//! A commit that failed to say that it happened.

use std::io::ErrorKind;

use super::disk::{Disk, Fault};
use super::*;

/// A message that states its time; its value tells it from others.
fn timed(connection: u64, packet_id: u16, value: u32) -> Intake {
    let mut row = row(Place::Window(window(1)), value);
    row.body.timed = true;
    let payload = u8::try_from(value).unwrap();
    Intake { mark: Some(Mark { connection, ..mark(packet_id, false, payload) }), position: None, rows: vec![row] }
}

#[tokio::test]
async fn wherever_the_disk_fails_a_connection_that_has_brought_something_new_stays_beyond_its_beginning() {
    for steps in 1.. {
        let lab = Lab::new();
        let disk = Disk::new(Vec::new());
        let (spool, thread) = lab.open(&disk).unwrap();
        store(&spool, timed(1, 1, 60)).await;
        disk.fail_in(steps, Fault::Once(ErrorKind::Other));
        assert!(!store(&spool, timed(2, 1, 61)).await.duplicate, "step {steps}");
        let over = disk.unharmed();
        // Beyond the beginning equal payloads are two messages, whenever the first was stored.
        assert!(!store(&spool, timed(2, 2, 61)).await.duplicate, "step {steps}");
        store(&spool, timed(2, 3, 60)).await;
        let found = census(&spool).await;
        assert_eq!((found["60"], found["61"]), (2, 2), "step {steps}");
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
        if over {
            assert!(steps > 3, "the disk was asked at all");
            return;
        }
    }
}
