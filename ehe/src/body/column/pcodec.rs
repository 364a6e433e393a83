//! Columns as `pco` packs them (SPEC 14, form 3): `04 01`, the metadata of one chunk, one page; no counts of its own.
//!
//! pco reads with unchecked offsets behind checks of its metadata, and some of its modes allocate what a few bytes ask for. So
//! what comes in is held against the few shapes of metadata that we write before pco sees it: plain or first-order deltas, at
//! most [`COLUMN_PCO_BINS_MAX`] bins, tables of at most 2^[`COLUMN_PCO_TABLE_LOG_MAX`] states. The count is known from outside.

use pco::data_types::Number;
use pco::metadata::{DeltaEncoding, Mode};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::ColumnError;
use crate::limits::{COLUMN_PCO_BINS_MAX, COLUMN_PCO_TABLE_LOG_MAX};

/// pco's format version 4.1, as its header writes it.
const FORMAT: [u8; 2] = [4, 1];

/// Effort of pco's search, its own default; it shapes what is written, never what is accepted.
const LEVEL: usize = 8;

/// The narrowest of pco's number types that holds `distance`, in bits. (Its 8-bit type is not used: it saves nothing.)
pub(super) fn width_of(distance: u64) -> u8 {
    match distance {
        0..=0xffff => 16,
        0x1_0000..=0xffff_ffff => 32,
        _ => 64,
    }
}

/// The shortest of pco's encodings of `values`, each counted from `base`, as numbers of `width` bits; `None` if none is ours.
pub(super) fn compress(values: &[i64], base: i64, width: u8) -> Option<Vec<u8>> {
    match width {
        16 => compress_as::<u16>(values, base),
        32 => compress_as::<u32>(values, base),
        _ => compress_as::<u64>(values, base),
    }
}

fn compress_as<T: Number + TryFrom<u64> + Into<u64> + Copy + Default + PartialEq>(
    values: &[i64],
    base: i64,
) -> Option<Vec<u8>> {
    let distance = |value: &i64| T::try_from(value.wrapping_sub(base).cast_unsigned()).ok();
    let numbers: Vec<T> = values.iter().map(distance).collect::<Option<_>>()?;
    let encoded = |delta: DeltaSpec| -> Option<Vec<u8>> {
        let config = ChunkConfig::default()
            .with_compression_level(LEVEL)
            .with_mode_spec(ModeSpec::Classic)
            .with_delta_spec(delta)
            .with_paging_spec(PagingSpec::Exact(vec![numbers.len()]));
        let file = FileCompressor::default();
        let mut chunk = file.chunk_compressor(&numbers, &config).ok()?;
        let bytes = file.write_header(Vec::new()).ok()?;
        let bytes = chunk.write_meta(bytes).ok()?;
        let bytes = chunk.write_page(0, bytes).ok()?;
        // Whatever a later pco may choose to write: what would not be read back, or as something else, is not sealed.
        (decompress_as::<T>(&bytes, numbers.len()).ok()? == numbers).then_some(bytes)
    };
    [DeltaSpec::NoOp, DeltaSpec::TryConsecutive(1)].into_iter().filter_map(encoded).min_by_key(Vec::len)
}

/// Appends the `count` values of `chunk`. The caller has held `count` against its limit.
pub(super) fn decompress(
    chunk: &[u8],
    base: i64,
    width: u8,
    count: usize,
    values: &mut Vec<i64>,
) -> Result<(), ColumnError> {
    fn append<T: Into<u64>>(numbers: Vec<T>, base: i64, values: &mut Vec<i64>) {
        values.extend(numbers.into_iter().map(|number| base.wrapping_add(number.into().cast_signed())));
    }
    match width {
        16 => append(decompress_as::<u16>(chunk, count)?, base, values),
        32 => append(decompress_as::<u32>(chunk, count)?, base, values),
        64 => append(decompress_as::<u64>(chunk, count)?, base, values),
        _ => return Err(ColumnError::Width { width }),
    }
    Ok(())
}

fn decompress_as<T: Number + Copy + Default>(chunk: &[u8], count: usize) -> Result<Vec<T>, ColumnError> {
    check_metadata(chunk)?;
    let mut numbers = vec![T::default(); count];
    let read = |numbers: &mut [T]| -> Result<usize, pco::errors::PcoError> {
        let (file, rest) = FileDecompressor::new(chunk)?;
        let (mut decompressor, rest) = file.chunk_decompressor::<T, _>(rest)?;
        debug_assert!(matches!(decompressor.meta().mode, Mode::Classic));
        debug_assert!(matches!(
            decompressor.meta().delta_encoding,
            DeltaEncoding::NoOp | DeltaEncoding::Consecutive { order: 1, secondary_uses_delta: false }
        ));
        let mut page = decompressor.page_decompressor(rest, numbers.len())?;
        page.read(numbers)?;
        Ok(page.into_src().len())
    };
    // pco's own words are about its insides; that the bytes are no chunk of `count` numbers is all that matters here.
    match read(&mut numbers) {
        Ok(0) => Ok(numbers),
        Ok(_) => Err(ColumnError::Pco("bytes follow the page")),
        Err(_) => Err(ColumnError::Pco("the bytes are no page of as many numbers")),
    }
}

/// Holds the fixed part of the metadata against what we write: mode (4 bits, 0), delta variant (4 bits, 0 or 1; 1 is followed by
/// 3 bits of order, 1, and a bit for a second variable, 0), log2 of the states (4 bits), bins (15 bits).
fn check_metadata(chunk: &[u8]) -> Result<(), ColumnError> {
    let rest = chunk.strip_prefix(&FORMAT).ok_or(ColumnError::Pco("not of pco's format 4.1"))?;
    let head = rest.first_chunk::<4>().ok_or(ColumnError::Pco("shorter than its metadata"))?;
    let head = u32::from_le_bytes(*head);
    let field = |from: u32, bits: u32| (head >> from) & ((1 << bits) - 1);
    let at = match (field(0, 4), field(4, 4)) {
        (0, 0) => 8,
        (0, 1) if field(8, 4) == 1 => 12,
        _ => return Err(ColumnError::Pco("a mode or delta encoding that is not used here")),
    };
    let (states_log, bins) = (field(at, 4), field(at + 4, 15));
    if states_log > COLUMN_PCO_TABLE_LOG_MAX || !(1..=COLUMN_PCO_BINS_MAX).contains(&bins) {
        return Err(ColumnError::Pco("more bins or states than are used here"));
    }
    Ok(())
}
