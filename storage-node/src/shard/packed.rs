//! Numbers in as few bytes as they need (LEB128: seven bits a byte, the lowest first, the top bit says that more follow), and
//! taking packed bytes apart.

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let [low, ..] = n.to_le_bytes();
        n >>= 7;
        if n == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a number that may be negative; small ones of either sign are short.
pub(super) fn put_signed(out: &mut Vec<u8>, n: i64) {
    put(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

/// Appends bytes and, before them, how many they are.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len().try_into().unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

/// Takes packed bytes from the front. `None`: they end too early, or are not what they should be.
#[derive(Clone)]
pub(super) struct Unpack<'a>(pub(super) &'a [u8]);

impl<'a> Unpack<'a> {
    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A number.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    /// A number that may be negative.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
    }

    /// Bytes with their number before them.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.number()?.try_into().ok()?;
        self.take(n)
    }

    /// What is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(n: u64, signed: i64, shift in 0..64u32) {
            let mut out = Vec::new();
            put(&mut out, n >> shift);
            put_signed(&mut out, signed >> shift);
            let mut unpack = Unpack(&out);
            prop_assert_eq!((unpack.number(), unpack.signed(), unpack.rest()), (Some(n >> shift), Some(signed >> shift), &[][..]));
        }
    }

    #[test]
    fn numbers_that_end_early_or_are_too_large_are_none() {
        assert_eq!(Unpack(&[0x80]).number(), None);
        assert_eq!(Unpack(&[0xff; 10]).number(), None);
        assert_eq!(Unpack(&[0xff; 11]).number(), None);
        assert_eq!(Unpack(&[5, 1]).bytes(), None);
        assert_eq!(Unpack(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).bytes(), None);
    }
}
