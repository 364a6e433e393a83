//! One function for each thing that comes from outside: it takes any bytes and asserts what must hold of them.
//!
//! Fuzz targets call these with bytes that a fuzzer made up, `tests/corpus.rs` with the files of the corpus. That decoders do not
//! panic is the least of it: what is accepted has one encoding, so it must encode to the very bytes that were accepted.

use ehe::body::vitals::VitalsBody;
use ehe::cbor;
use ehe::charter::{CharterChain, SignedCharter, VerifiedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::control::Control;
use ehe::cose::Unverified;
use ehe::event::{Core, Event, Header, Kind, Suite, VERSION, decode_header};
use ehe::evidence::{self, Contradiction, Evidence, Finding};
use ehe::id::{AuthorId, EpochId, Hash, Nonce, RoomId, WrapId};
use ehe::leaf::Receipt;
use ehe::limits;
use ehe::note::Note;
use ehe::read::{AccessRecord, SignedRequest};
use ehe::restoration::SignedRestoration;
use ehe::run::SignedRun;
use ehe::time::Hour;
use ehe::void::VoidRecord;
use ehe::wire::{Request, Response};
use minicbor::bytes::ByteSlice;
use sha2::{Digest, Sha256};

/// A target's name, which is its folder's in `corpus`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: [Target; 11] = [
    ("body", body),
    ("control", control),
    ("run", run),
    ("header", header),
    ("frame", frame),
    ("request", request),
    ("receipt", receipt),
    ("charter", charter),
    ("evidence", evidence),
    ("restoration", restoration),
    ("void", void),
];

/// An event's header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = decode_header(bytes) {
        assert_eq!(header.core.version, VERSION);
        assert_eq!(cbor::to_vec(&header), bytes);
    }
}

/// A vitals body, as it is once it was opened.
pub fn body(bytes: &[u8]) {
    let Ok(readings) = VitalsBody::decode(bytes) else { return };
    assert!(!readings.is_empty() && readings.len() <= limits::READINGS_PER_BODY_MAX);
    let again = VitalsBody::from_readings(&readings).expect("readings of a body fit a body");
    if readings.len() < limits::COLUMN_PCO_VALUES_MIN {
        assert_eq!(again.as_slice(), bytes);
    } else {
        // Compressed columns have several encodings of the same values; the values are what counts.
        assert_eq!(VitalsBody::decode(again.as_slice()).as_deref(), Ok(readings.as_slice()));
    }
}

/// A signed run. Its COSE_Sign1 is put together again from what was understood of it.
pub fn run(bytes: &[u8]) {
    let Ok(run) = SignedRun(bytes.to_vec()).decode() else { return };
    let claims = run.claims();
    assert!((1..=limits::RUN_EVENTS_MAX).contains(&claims.ids.len()));
    assert_eq!(
        claims.end().next,
        claims.from.next.saturating_add(u64::try_from(claims.ids.len()).expect("at most 256"))
    );
    signed(bytes, limits::RUN_MAX_BYTES, claims.author, &cbor::to_vec(claims));
}

/// A signed read request, or an access record with one in it.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = SignedRequest(bytes.to_vec()).decode() {
        let claims = request.claims();
        assert!(claims.scope.epochs.len() <= limits::EPOCHS_PER_GRANT_MAX);
        signed(bytes, limits::READ_REQUEST_MAX_BYTES, claims.reader, &cbor::to_vec(claims));
    }
    if let Ok(record) = AccessRecord::decode(bytes) {
        assert_eq!(record.to_vec(), bytes);
        request(&record.request.0);
    }
}

/// COSE_Sign1 as SPEC 7 draws it: nothing of the bytes is left out of account.
fn signed(bytes: &[u8], limit: usize, signer: AuthorId, payload: &[u8]) {
    let parsed = Unverified::decode(bytes, limit).expect("was decoded before");
    assert_eq!((parsed.signer(), parsed.payload()), (signer, payload));
    let mut protected = vec![0xa2, 0x01, 0x27, 0x04];
    protected.extend(cbor::to_vec(&signer));
    let string = |bytes: &[u8]| cbor::to_vec(&<&ByteSlice>::from(bytes));
    let signature = bytes.get(bytes.len() - 64..).expect("a signature");
    let again = [&[0x84], string(&protected).as_slice(), &[0xa0], &string(payload), &string(signature)].concat();
    assert_eq!(again, bytes);
}

/// A message of the wire, either way.
pub fn frame(bytes: &[u8]) {
    if let Ok(message) = Request::decode(bytes) {
        assert_eq!(message.to_vec(), bytes);
        match message {
            Request::Submit(submission) => {
                run(&submission.run.0);
                submission.events.into_iter().for_each(event);
            }
            Request::Fetch(signed, _) | Request::Subscribe(signed, _) => request(&signed.0),
            _ => {}
        }
    }
    if let Ok(message) = Response::decode(bytes) {
        assert_eq!(message.to_vec(), bytes);
        match message {
            Response::Item(item) => {
                item.run.iter().for_each(|signed| run(&signed.0));
                item.access.iter().for_each(|record| request(record));
                item.void.iter().for_each(|record| void(record));
                item.events.into_iter().for_each(event);
            }
            Response::Submitted(submitted) => receipt(&cbor::to_vec(&submitted.receipt)),
            Response::Head(head) => receipt(&cbor::to_vec(&head.last)),
            Response::Charter(chain) => charter(&chain),
            Response::Wrap(wrap) => event(wrap),
            Response::Evidence(_, bytes) => contradiction(&bytes),
            Response::Restorations(records) => records.iter().for_each(|record| restoration(record)),
            _ => {}
        }
    }
}

fn event(event: Event) {
    let Ok(checked) = event.clone().check() else { return };
    assert_eq!(checked.event(), &event);
    assert!(checked.body().len() <= checked.core().kind.body_limit());
    let _ = Control::decode(&checked);
}

/// A control event's body, behind one byte that names its kind: the header that fits it is made here.
pub fn control(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let Ok(kind) = minicbor::decode::<Kind>(&cbor::to_vec(kind)) else { return };
    let core = Core {
        version: VERSION,
        suite: Suite::One,
        kind,
        room: RoomId([1; 16]),
        author: AuthorId([2; 16]),
        epoch: EpochId::ZERO,
        wrap: WrapId::ZERO,
        hour: Hour(480_000),
        salt: Nonce([3; 16]),
    };
    let header = Header { core, commitment: Hash::ZERO, body_hash: Hash(Sha256::digest(body).into()) };
    let event = Event { header: cbor::to_vec(&header), body: body.to_vec() };
    let Ok(checked) = event.check() else { return };
    if let Ok(control) = Control::decode(&checked) {
        assert_eq!(control.kind(), kind);
        // The plain part is the map's first member: 0, then a byte string.
        let mut decoder = minicbor::Decoder::new(body);
        let plain = decoder.map().and_then(|_| decoder.u8()).and_then(|_| decoder.bytes()).expect("was decoded before");
        assert_eq!(control.plain_bytes(), plain);
    }
}

/// A receipt, or the note of a checkpoint.
pub fn receipt(bytes: &[u8]) {
    if let Ok(receipt) = cbor::from_slice::<Receipt>(bytes, limits::FRAME_MAX_BYTES) {
        assert_eq!(cbor::to_vec(&receipt), bytes);
        note(&receipt.checkpoint);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        note(text);
    }
}

fn note(text: &str) {
    let Ok(note) = Note::parse(text) else { return };
    assert_eq!(note.to_string(), text);
    if let Ok(checkpoint) = Checkpoint::parse(&note) {
        assert!(note.text().starts_with(&format!("{}\n{}\n", checkpoint.origin, checkpoint.size)));
    }
}

/// A chain of charters. It is verified against the alliance that it claims to be of: nobody else's pin would let it get far.
pub fn charter(bytes: &[u8]) {
    if let Ok(chain) = CharterChain::decode(bytes) {
        assert_eq!(chain.encode(), bytes);
        if let Some(alliance) = chain.claimed_alliance()
            && let Ok(verified) = chain.verify(alliance)
        {
            assert_eq!(verified.alliance_id(), alliance);
            assert_eq!(usize::try_from(verified.version()), Ok(chain.0.len()));
        }
        chain.0.iter().for_each(one_charter);
    }
    if let Ok(signed) = SignedCharter::decode(bytes) {
        assert_eq!(signed.encode(), bytes);
        one_charter(&signed);
    }
}

fn one_charter(signed: &SignedCharter) {
    if let Ok(charter) = signed.read() {
        let again = SignedCharter::unsigned(&charter).expect("a charter that was read keeps the rules");
        assert_eq!(again.hash(), signed.hash());
        let _ = signed.signers();
    }
}

/// What nodes show of evidence: without the charters it proves nothing.
pub fn contradiction(bytes: &[u8]) {
    let Ok(decoded) = Contradiction::decode(bytes) else { return };
    assert_eq!(decoded.to_vec(), bytes);
    decoded.notes().into_iter().for_each(note);
    assert!(decoded.judge::<VerifiedCharter>(&[]).is_err());
}

/// A file of evidence. Whatever it says, nobody is accused who has signed nothing.
pub fn evidence(bytes: &[u8]) {
    if let Ok(decoded) = Evidence::decode(bytes) {
        assert_eq!(decoded.to_vec(), bytes);
        charter(&decoded.charters);
        contradiction(&decoded.contradiction.to_vec());
        assert_eq!(decoded.judge(), evidence::judge(bytes));
    }
    let Ok(verdict) = evidence::judge(bytes) else { return };
    let sides = [&verdict.first, &verdict.second];
    assert!(sides.iter().all(|side| !side.signers.is_empty()));
    assert!((verdict.first.size, verdict.first.root) < (verdict.second.size, verdict.second.root));
    assert_ne!(verdict.prefix, verdict.first.root);
    let accused = verdict.accused();
    assert!(!accused.is_empty());
    let signed = |node, side: &ehe::evidence::Side| side.signers.iter().any(|signer| signer.node == node);
    match verdict.finding() {
        Finding::SignedBoth => assert!(accused.iter().all(|node| sides.iter().all(|side| signed(*node, side)))),
        _ => assert!(accused.iter().all(|node| sides.iter().any(|side| signed(*node, side)))),
    }
}

/// The record of a restored log. No charter comes with it, so nothing of it can stand.
pub fn restoration(bytes: &[u8]) {
    let Ok(signed) = SignedRestoration::decode(bytes) else { return };
    assert_eq!(signed.encode(), bytes);
    let _ = signed.signers();
    if let Ok(said) = signed.read() {
        assert_eq!(SignedRestoration::unsigned(&said).hash(), signed.hash());
        assert!(signed.verify(said.shard, &[]).is_err());
        said.checkpoint.iter().chain(&said.newest).for_each(|text| note(text));
    }
}

/// The record by which a run is void. What it brings is any bytes as long as nobody judged it.
pub fn void(bytes: &[u8]) {
    let Ok(record) = VoidRecord::decode(bytes) else { return };
    assert_eq!(record.to_vec(), bytes);
    assert!(bytes.len() <= limits::VOID_RECORD_MAX_BYTES);
    run(&record.run.0);
}
