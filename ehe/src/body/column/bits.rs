//! Unsigned numbers of equal width, packed without gaps: the first in the lowest bits of the first byte.

/// Widest number whose bits, wherever they begin in a byte, lie within eight bytes.
const WIDTH_IN_ONE_WORD: usize = 57;

/// Bytes that `count` numbers of `width` bits take.
pub(super) fn packed_len(count: usize, width: u8) -> usize {
    (count * usize::from(width)).div_ceil(8)
}

/// Packs numbers that are below 2^`width`; the bits left over are zero.
pub(super) fn pack(values: impl ExactSizeIterator<Item = u64>, width: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(packed_len(values.len(), width) + 8);
    let (mut pending, mut filled) = (0u128, 0u32);
    for value in values {
        pending |= u128::from(value) << filled;
        filled += u32::from(width);
        if filled >= 64 {
            let [a, b, c, d, e, f, g, h, ..] = pending.to_le_bytes();
            bytes.extend_from_slice(&[a, b, c, d, e, f, g, h]);
            pending >>= 64;
            filled -= 64;
        }
    }
    let rest = usize::try_from(filled.div_ceil(8)).unwrap_or(0);
    bytes.extend(pending.to_le_bytes().iter().take(rest));
    bytes
}

/// Hands out `count` numbers of `width` (1 to 64) bits from their [`packed_len`] bytes.
pub(super) fn unpack(bytes: &[u8], width: u8, count: usize, mut number: impl FnMut(u64)) {
    let mask = u64::MAX >> (64 - u32::from(width));
    let width = usize::from(width);
    // Eight numbers are `width` bytes: each group begins at a byte, and is read from a copy that words may overhang.
    let mut left = count;
    for group in bytes.chunks(width) {
        let mut padded = [0u8; 64 + 8];
        padded.iter_mut().zip(group).for_each(|(to, from)| *to = *from);
        for index in 0..left.min(8) {
            let bit = index * width;
            let word = padded.get(bit / 8..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
            let mut value = u64::from_le_bytes(word) >> (bit % 8);
            if width > WIDTH_IN_ONE_WORD {
                let ninth = padded.get(bit / 8 + 8).copied().unwrap_or_default();
                value |= u64::try_from((u128::from(ninth) << 64 >> (bit % 8)) & u128::from(u64::MAX)).unwrap_or(0);
            }
            number(value & mask);
        }
        left = left.saturating_sub(8);
    }
}

/// Whether the bits after the last number are zero, as they must be.
pub(super) fn spare_bits_are_zero(bytes: &[u8], width: u8, count: usize) -> bool {
    let used = count * usize::from(width) % 8;
    used == 0 || bytes.last().is_none_or(|last| last >> used == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_number_lies_in_the_lowest_bits_of_the_first_byte() {
        assert_eq!(pack([1u64, 2, 3].into_iter(), 3), [0b1101_0001, 0]);
        assert_eq!(pack([0x1ff, 0].into_iter(), 9), [0xff, 0x01, 0]);
        assert!(spare_bits_are_zero(&[0b1101_0001, 0], 3, 3));
        assert!(!spare_bits_are_zero(&[0b1101_0001, 0b10], 3, 3));
    }

    proptest! {
        #[test]
        fn numbers_of_any_width_come_back(width in 1u8..=64, values in prop::collection::vec(any::<u64>(), 0..100)) {
            let values: Vec<u64> = values.into_iter().map(|value| value >> (64 - width)).collect();
            let bytes = pack(values.iter().copied(), width);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), width));
            prop_assert!(spare_bits_are_zero(&bytes, width, values.len()));
            let mut back = Vec::new();
            unpack(&bytes, width, values.len(), |value| back.push(value));
            prop_assert_eq!(back, values);
        }
    }
}
