//! Application codes of closed connections and reset streams: one table for both.

use core::fmt;

/// Why an end closed a connection, reset a stream, or stopped reading one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 0: all done.
    Done,
    /// 1: the program is stopping; connect again, elsewhere or later.
    GoingAway,
    /// 2: the certificate is valid, its holder is not welcome here.
    NotAuthorized,
    /// 3: the other end broke the protocol.
    Protocol,
    /// 4: a frame above the limit.
    TooLarge,
    /// 5: the other end took too long.
    Timeout,
    /// 6: too much to do; come back later.
    Busy,
    /// 7: a fault of the end that closed.
    Internal,
    /// 8: the certificate has been revoked since.
    Revoked,
    /// 9: the certificate's time is over.
    Expired,
    /// Any other: of a newer program.
    Unknown(u32),
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::GoingAway => 1,
            Self::NotAuthorized => 2,
            Self::Protocol => 3,
            Self::TooLarge => 4,
            Self::Timeout => 5,
            Self::Busy => 6,
            Self::Internal => 7,
            Self::Revoked => 8,
            Self::Expired => 9,
            Self::Unknown(number) => number,
        }
    }

    pub(super) fn from_wire(number: quinn::VarInt) -> Self {
        match number.into_inner() {
            0 => Self::Done,
            1 => Self::GoingAway,
            2 => Self::NotAuthorized,
            3 => Self::Protocol,
            4 => Self::TooLarge,
            5 => Self::Timeout,
            6 => Self::Busy,
            7 => Self::Internal,
            8 => Self::Revoked,
            9 => Self::Expired,
            other => Self::Unknown(u32::try_from(other).unwrap_or(u32::MAX)),
        }
    }

    pub(super) fn wire(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(self.number())
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::GoingAway => "the program is stopping",
            Self::NotAuthorized => "not authorized",
            Self::Protocol => "protocol broken",
            Self::TooLarge => "frame too large",
            Self::Timeout => "took too long",
            Self::Busy => "busy",
            Self::Internal => "internal fault",
            Self::Revoked => "certificate revoked",
            Self::Expired => "certificate expired",
            Self::Unknown(number) => return write!(f, "code {number} of a newer program"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_its_number_there_and_back() {
        for number in 0..12 {
            assert_eq!(CloseCode::from_wire(quinn::VarInt::from_u32(number)).number(), number);
        }
        assert_eq!(CloseCode::from_wire(quinn::VarInt::MAX), CloseCode::Unknown(u32::MAX));
    }
}
