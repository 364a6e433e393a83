//! Frames: limits, deadlines, ends.

use ehe::limits::FRAME_MAX_BYTES;

use super::ends::{LIMIT, SHORT, begun};
use crate::channel::{ChannelError, CloseCode};

#[tokio::test]
async fn frames_of_all_sizes_arrive_whole_and_in_order() {
    let mut ends = begun().await;
    let frames: Vec<Vec<u8>> =
        [0, 1, 3, 4, 5, 1200, 65_536, FRAME_MAX_BYTES].map(|n| vec![u8::try_from(n % 251).unwrap(); n]).into();
    let sending = async {
        for frame in &frames {
            ends.near.send(frame, LIMIT).await.unwrap();
        }
        ends.near.finish().unwrap();
        ends.near.delivered(LIMIT).await.unwrap();
    };
    let receiving = async {
        for frame in &frames {
            assert!(ends.far.recv(LIMIT).await.unwrap().unwrap() == frame.as_slice(), "{} bytes", frame.len());
        }
        assert_eq!(ends.far.recv(LIMIT).await, Ok(None));
        assert_eq!(ends.far.recv(LIMIT).await, Ok(None));
    };
    tokio::join!(sending, receiving);
    ends.far.send(b"answer", LIMIT).await.unwrap();
    assert_eq!(ends.near.recv(std::time::Duration::MAX).await.unwrap().unwrap(), "answer");
}

#[tokio::test]
async fn a_frame_is_announced_before_anything_of_it_is_taken() {
    let mut ends = begun().await;
    ends.near.send(&vec![7; 300_000], LIMIT).await.unwrap();
    ends.near.send(b"", LIMIT).await.unwrap();
    ends.near.finish().unwrap();
    for _ in 0..2 {
        assert_eq!(ends.far.announced(LIMIT).await, Ok(Some(300_000)));
        assert_eq!(ends.far.receiver.held_bytes(), 0);
    }
    assert_eq!(ends.far.recv(LIMIT).await.unwrap().unwrap().len(), 300_000);
    assert_eq!(ends.far.announced(LIMIT).await, Ok(Some(0)));
    assert_eq!(ends.far.recv(LIMIT).await.unwrap().unwrap(), "");
    assert_eq!(ends.far.announced(LIMIT).await, Ok(None));
}

#[tokio::test]
async fn both_directions_of_an_exchange_work_at_the_same_time() {
    let ends = begun().await;
    let frame = vec![7; 300_000];
    let flow = |mut from: crate::FrameSender, mut to: crate::FrameReceiver| {
        let frame = &frame;
        async move {
            let send = async {
                for _ in 0..20 {
                    from.send(frame, LIMIT).await.unwrap();
                }
                from.finish().unwrap();
            };
            let receive = async {
                let mut count = 0;
                while let Some(got) = to.recv(LIMIT).await.unwrap() {
                    assert_eq!(got.len(), frame.len());
                    count += 1;
                }
                count
            };
            tokio::join!(send, receive).1
        }
    };
    let counts = tokio::join!(flow(ends.near.sender, ends.far.receiver), flow(ends.far.sender, ends.near.receiver));
    assert_eq!(counts, (20, 20));
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_announcement_alone_and_the_connection_goes_on() {
    let mut ends = begun().await;
    let announced = u32::try_from(FRAME_MAX_BYTES).unwrap() + 1;
    ends.near.sender.stream.write_all(&announced.to_be_bytes()).await.unwrap();
    let refused = ChannelError::FrameTooLarge { bytes: announced.into(), limit: FRAME_MAX_BYTES };
    assert_eq!(ends.far.recv(LIMIT).await, Err(refused.clone()));
    assert_eq!(ends.far.receiver.held_bytes(), 0);
    assert_eq!(ends.far.recv(LIMIT).await, Err(refused), "it stays refused");
    let told = tokio::time::timeout(LIMIT, ends.near.sender.stream.stopped()).await.unwrap().unwrap();
    assert_eq!(told.map(CloseCode::from_wire), Some(CloseCode::TooLarge));
    assert_eq!(ends.near.send(b"more", LIMIT).await, Err(ChannelError::Reset(CloseCode::TooLarge)));

    let mut next = ends.connection.open().await.unwrap();
    next.send(b"goes on", LIMIT).await.unwrap();
    let mut next = ends.peer.accept_exchange().await.unwrap();
    assert_eq!(next.recv(LIMIT).await.unwrap().unwrap(), "goes on");
}

#[tokio::test]
async fn we_send_no_oversized_frame_ourselves() {
    let mut ends = begun().await;
    let error = ends.near.send(&vec![0; FRAME_MAX_BYTES + 1], LIMIT).await.unwrap_err();
    assert!(matches!(error, ChannelError::FrameTooLarge { .. }));
    ends.near.send(b"small", LIMIT).await.unwrap();
    assert_eq!(ends.far.recv(LIMIT).await.unwrap().unwrap(), "small");
}

#[tokio::test]
async fn a_slow_peer_meets_the_deadline_holds_little_memory_and_loses_nothing() {
    let mut ends = begun().await;
    let slow = &mut ends.near.sender.stream;
    slow.write_all(&u32::try_from(FRAME_MAX_BYTES).unwrap().to_be_bytes()).await.unwrap();
    slow.write_all(b"begin").await.unwrap();
    assert!(matches!(ends.far.recv(SHORT).await, Err(ChannelError::Deadline(_))));
    let held = ends.far.receiver.held_bytes();
    assert!(held <= 16 * 1024, "{held} bytes held for five");
    let rest = vec![b'x'; FRAME_MAX_BYTES - 5];
    let (_, frame) = tokio::join!(slow.write_all(&rest), ends.far.receiver.recv(LIMIT));
    let frame = frame.unwrap().unwrap();
    assert!(frame.len() == FRAME_MAX_BYTES && frame.starts_with(b"beginx"));
}

#[tokio::test]
async fn a_peer_that_never_reads_meets_the_deadline_of_the_sender() {
    let mut ends = begun().await;
    let frame = vec![0; FRAME_MAX_BYTES];
    let mut outcome = Ok(());
    for _ in 0..32 {
        outcome = ends.near.send(&frame, SHORT).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(matches!(outcome, Err(ChannelError::Deadline(_))), "{outcome:?}");
    assert_eq!(ends.near.send(b"", LIMIT).await, Err(ChannelError::ClosedHere));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_no_frame() {
    let mut ends = begun().await;
    ends.near.sender.stream.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    ends.near.finish().unwrap();
    assert_eq!(ends.far.recv(LIMIT).await, Err(ChannelError::Truncated));
}

#[tokio::test]
async fn an_abandoned_exchange_says_why() {
    let mut ends = begun().await;
    ends.near.abort(CloseCode::Internal);
    assert_eq!(ends.far.recv(LIMIT).await, Err(ChannelError::Reset(CloseCode::Internal)));
}

#[tokio::test]
async fn an_orderly_close_reaches_everybody_who_waits() {
    let mut ends = begun().await;
    ends.server.close(CloseCode::GoingAway);
    assert_eq!(ends.connection.closed().await, ChannelError::Closed(CloseCode::GoingAway));
    assert_eq!(ends.near.recv(LIMIT).await, Err(ChannelError::Closed(CloseCode::GoingAway)));
    assert_eq!(ends.far.recv(LIMIT).await, Err(ChannelError::ClosedHere));
    assert!(ends.server.accept().await.is_none());
    assert!(!ends.connection.is_open());
    assert!(ends.client.wait_idle(LIMIT).await);
}

#[tokio::test]
async fn a_connection_goes_on_after_the_client_moved_to_another_address() {
    let mut ends = begun().await;
    let before = ends.client.local_addr().unwrap();
    ends.client.rebind().unwrap();
    assert_ne!(ends.client.local_addr().unwrap(), before);
    ends.near.send(b"from elsewhere", LIMIT).await.unwrap();
    assert_eq!(ends.far.recv(LIMIT).await.unwrap().unwrap(), "from elsewhere");
    assert_eq!(ends.peer.remote_address().port(), ends.client.local_addr().unwrap().port());
    drop(ends.world);
}
