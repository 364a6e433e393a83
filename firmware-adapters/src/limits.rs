//! Every bound on what an adapter reads, in one table. Above it: a typed error, nothing is truncated.

/// Largest input document, in bytes.
pub const INPUT_MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting of a JSON document.
pub const JSON_DEPTH_MAX: usize = 32;
/// Elements of one JSON array, and members of one JSON object.
pub const JSON_ELEMENTS_MAX: usize = 4096;
/// Readings that one input gives: as many as one vitals body holds.
pub const READINGS_PER_INPUT_MAX: usize = ehe::limits::READINGS_PER_BODY_MAX;
/// Longest path of a mapping, in bytes.
pub const PATH_MAX_BYTES: usize = 256;
/// Steps (members and selectors) of a path.
pub const PATH_STEPS_MAX: usize = 16;
/// Values of one mapping.
pub const VALUES_PER_MAPPING_MAX: usize = 64;
/// Entries of a value's `ignore` list and of its `units` table.
pub const ENTRIES_PER_VALUE_MAX: usize = 64;
/// Longest resolved name of a SenML record, in bytes: each record of a pack carries the base name.
pub const SENML_NAME_MAX_BYTES: usize = 512;
/// Longest unit of a SenML record, in bytes.
pub const SENML_UNIT_MAX_BYTES: usize = 32;
/// Rows of a configured SenML mapping.
pub const SENML_ROWS_MAX: usize = 256;
