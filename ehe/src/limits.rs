//! Every bound of the format in one table. A decoder checks the bound before it allocates.
//!
//! Units stand last in each name. A value above a limit is refused with a typed error; nothing is truncated.

/// Largest frame on the wire, without its four length bytes.
pub const FRAME_MAX_BYTES: usize = 1024 * 1024;
/// Largest encoded submission: it travels back to readers as an item, whose leaf must fit the frame too.
pub const SUBMISSION_MAX_BYTES: usize = FRAME_MAX_BYTES - 1024;
/// Largest encoded header of an event.
pub const HEADER_MAX_BYTES: usize = 512;
/// Largest body (ciphertext) of a content event.
pub const CONTENT_BODY_MAX_BYTES: usize = 64 * 1024;
/// Largest body of a control event. An epoch record carries one 1,168-byte wrap for each reader.
pub const CONTROL_BODY_MAX_BYTES: usize = 384 * 1024;
/// Smallest padded body (ciphertext with its tag); above it Padmé lengths apply.
pub const BODY_FLOOR_BYTES: usize = 256;
/// Events under one signature.
pub const RUN_EVENTS_MAX: usize = 256;
/// Largest encoded signed run: 256 ids and at most half a KiB of everything else.
pub const RUN_MAX_BYTES: usize = RUN_EVENTS_MAX * 32 + 1024;
/// Largest signed read request.
pub const READ_REQUEST_MAX_BYTES: usize = 8 * 1024;
/// Largest access record: a request, a reader's keys and little else.
pub const ACCESS_RECORD_MAX_BYTES: usize = 2 * READ_REQUEST_MAX_BYTES;
/// Largest record by which a run is void: the run and little else.
pub const VOID_RECORD_MAX_BYTES: usize = RUN_MAX_BYTES + 64;
/// Runs with a false signature that who follows a room has behind it and no void record for yet; with more it goes no further.
pub const UNVOIDED_RUNS_MAX: usize = 1024;
/// Largest encoded vitals body: with 16 bytes of tag and one of padding marker it fills a content body, itself a Padmé length.
pub const VITALS_BODY_MAX_BYTES: usize = CONTENT_BODY_MAX_BYTES - 17;
/// Readings in one vitals body.
pub const READINGS_PER_BODY_MAX: usize = 4096;
/// Series (vital, unit, device, …) in one vitals body.
pub const SERIES_PER_BODY_MAX: usize = 64;
/// Values that a column has at least where it is compressed by pco.
pub const COLUMN_PCO_VALUES_MIN: usize = 256;
/// Bins of a column that pco compressed.
pub const COLUMN_PCO_BINS_MAX: u32 = 256;
/// Size log (log2 of the states) of the table of a column that pco compressed.
pub const COLUMN_PCO_TABLE_LOG_MAX: u32 = 10;
/// Device identifier, UTF-8 bytes.
pub const DEVICE_ID_MAX_BYTES: usize = 64;
/// Free text in the sealed part of a control event (a name, a purpose), UTF-8 bytes.
pub const LABEL_MAX_BYTES: usize = 200;
/// Epochs that one grant or one read request names.
pub const EPOCHS_PER_GRANT_MAX: usize = 64;
/// Grants that one room holds, revoked ones included.
pub const GRANTS_PER_ROOM_MAX: usize = 1024;
/// Epochs that all grants of one room cover, each grant's counted: a continued grant grows with every epoch.
pub const GRANTED_EPOCHS_PER_ROOM_MAX: usize = 64 * 1024;
/// Key epochs that one room holds.
pub const EPOCHS_PER_ROOM_MAX: usize = 4096;
/// Delegations that one room holds, ended ones included.
pub const DELEGATIONS_PER_ROOM_MAX: usize = 64;
/// Keys that the owner of one room may come to by rotation.
pub const OWNER_KEYS_BY_ROTATION_MAX: usize = 128;
/// Keys that the owner of one room may come to in all: a thief who rotates without end leaves room for recovery.
pub const OWNER_KEYS_PER_ROOM_MAX: usize = OWNER_KEYS_BY_ROTATION_MAX + 128;
/// Largest proof of possession in an authority record.
pub const POSSESSION_MAX_BYTES: usize = 256;
/// Wraps (seeds or part keys) in one control body.
pub const WRAPS_PER_CONTROL_MAX: usize = 160;
/// Shards of an alliance.
pub const SHARDS_MAX: u16 = 1024;
/// Members, and nodes, of an alliance.
pub const MEMBERS_MAX: usize = 64;
/// Largest encoded charter with its signatures.
pub const CHARTER_MAX_BYTES: usize = 256 * 1024;
/// Addresses that one node lists.
pub const ADDRESSES_PER_NODE_MAX: usize = 4;
/// Longest address (`host:port`) of a node: a DNS name of 253 bytes, a colon, a port.
pub const ADDRESS_MAX_BYTES: usize = 253 + 1 + 5;
/// Longest name of a node. It is a key name in signed notes and a DNS name in certificates.
pub const NODE_NAME_MAX_BYTES: usize = 128;
/// Longest time that a head may count as fresh: one day.
pub const HEAD_FRESH_MAX_MS: u32 = 24 * 60 * 60 * 1000;
/// Versions that one chain of charters holds.
pub const CHAIN_VERSIONS_MAX: usize = 256;
/// Largest encoded chain of charters.
pub const CHAIN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest checkpoint note (text) with its signatures.
pub const CHECKPOINT_MAX_BYTES: usize = 8 * 1024;
/// Longest origin line of a log, and longest name of a key in a note.
pub const ORIGIN_MAX_BYTES: usize = 128;
/// Largest encoded record of a restored log, with its signatures: two checkpoints, a proof, a signature of each member.
pub const RESTORATION_MAX_BYTES: usize = 32 * 1024;
/// Records of restored logs in one answer; who needs more asks again.
pub const RESTORATIONS_PER_ANSWER_MAX: usize = 16;
/// Largest COSE_Sign1 by which a node signs a head.
pub const HEAD_SIGNATURE_MAX_BYTES: usize = 1024;
/// Hashes in an inclusion or consistency proof: a tree of 2^64 leaves has no longer one.
pub const PROOF_HASHES_MAX: usize = 64;
/// Largest contradiction in evidence: two checkpoints and a proof. It fits a frame.
pub const CONTRADICTION_MAX_BYTES: usize = 64 * 1024;
/// Largest file of evidence: a contradiction, and the charters up to the later one that it names.
pub const EVIDENCE_MAX_BYTES: usize = CHAIN_MAX_BYTES + CONTRADICTION_MAX_BYTES;
/// Rooms that one `RoomsOf` answer lists.
pub const ROOMS_PER_ANSWER_MAX: usize = 1024;
/// A stream of reads is checked against the room at least this often.
pub const READ_LEASE_MS: u64 = 10_000;
/// A request made longer ago, or further ahead, than this is refused as stale.
pub const REQUEST_SKEW_MAX_MS: u64 = 5 * 60 * 1000;
