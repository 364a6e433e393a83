//! What is to be known about a value beside the value: what it summarises, and what speaks against it.

use core::fmt;

use crate::coded::coded;

coded! {
    /// What a value summarises; a plain reading has none. The list is that of Open mHealth's descriptive statistics.
    Statistic: u8 = "statistic" {
        /// The mean.
        1 Average "average",
        /// The largest.
        2 Maximum "maximum",
        /// The smallest.
        3 Minimum "minimum",
        /// The middle one.
        4 Median "median",
        /// All together.
        5 Sum "sum",
        /// Spread, in the vital's unit.
        6 StandardDeviation "standard_deviation",
        /// Spread, in the square of the vital's unit.
        7 Variance "variance",
        /// How many there were.
        8 Count "count",
        /// Half the distance of the quartiles.
        9 QuartileDeviation "quartile_deviation",
        /// A quarter is lower.
        10 LowerQuartile "lower_quartile",
        /// A quarter is higher.
        11 UpperQuartile "upper_quartile",
        /// A fifth is higher.
        12 Percentile80 "80th_percentile",
        /// A fifth is lower.
        13 Quintile1 "1st_quintile",
        /// Two fifths are lower.
        14 Quintile2 "2nd_quintile",
        /// Three fifths are lower.
        15 Quintile3 "3rd_quintile",
        /// Four fifths are lower.
        16 Quintile4 "4th_quintile",
        /// A fifth is lower (as the first quintile; its own name is kept).
        17 Percentile20 "20th_percentile",
    }
}

impl Statistic {
    /// Whether it is itself a value that a patient can have, so that plausible ranges and thresholds apply to it.
    pub const fn is_location(self) -> bool {
        !matches!(self, Self::Sum | Self::StandardDeviation | Self::Variance | Self::Count | Self::QuartileDeviation)
    }
}

macro_rules! flags {
    ($($(#[$meta:meta])* $bit:literal $name:ident $text:literal,)+) => {
        impl Flags {
            $($(#[$meta])* pub const $name: Flags = Flags(1 << $bit);)+

            const NAMES: &[(Flags, &str)] = &[$((Flags::$name, $text)),+];
        }
    };
}

/// What is to be known about a value before trusting it: a set of bits. Bits that this version does not know are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(pub u32);

flags! {
    /// Outside [`crate::vital::Vital::plausible`].
    0 IMPLAUSIBLE "implausible",
    /// The sensor reports a poor or questionable signal.
    1 POOR_SIGNAL "poor_signal",
    /// The sensor reports that it has no, or bad, contact: a loose cuff, a displaced probe, a strap that is not worn.
    2 POOR_CONTACT "poor_contact",
    /// The patient moved during the measurement.
    3 MOVEMENT "movement",
    /// The body or limb was in the wrong position.
    4 POSITION "position",
    /// The device found the pulse irregular.
    5 IRREGULAR_PULSE "irregular_pulse",
    /// An early estimate; a better value may follow.
    6 ESTIMATE "estimate",
    /// Fetched from the device's store, not sent when it was measured.
    7 FROM_STORAGE "from_storage",
    /// Typed in by a person, not measured by the device.
    8 SELF_REPORTED "self_reported",
    /// The device reports a fault of its own, or needs calibration.
    9 DEVICE_FAULT "device_fault",
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the flags that are set, in the order of their bits; bits without a name are left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x}", self.0)?;
        for name in self.names() {
            write!(f, " {name}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_have_their_published_names() {
        assert_eq!("standard_deviation".parse(), Ok(Statistic::StandardDeviation));
        for statistic in Statistic::ALL {
            assert_eq!(Statistic::from_code(statistic.code()), Some(*statistic));
        }
    }
}
