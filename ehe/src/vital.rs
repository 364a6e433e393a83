//! What is measured: one line a vital, with its codes, unit and plausible range.
//!
//! Codes: LOINC (what FHIR's vital-signs profile and the PHD implementation guide use) and MDC (ISO/IEEE 11073-10101, partition
//! in the upper 16 bits). Names are those of the decoder's contract; units are UCUM.

use core::ops::RangeInclusive;

use crate::coded::coded;
use crate::decimal::{Decimal, DecimalError};
use crate::unit::{Quantity, Unit};

coded! {
    /// The key of a patient's choice who may read what: every vital, and every other content, belongs to one.
    Category: u8 = "category" {
        /// Heart rate, blood pressure, rhythm.
        1 Cardiac "cardiac",
        /// Oxygen saturation, respiratory rate.
        2 Respiratory "respiratory",
        /// Glucose and what the metabolism shows.
        3 Metabolic "metabolic",
        /// Weight, composition, temperature.
        4 Body "body",
        /// Steps, distance, energy.
        5 Activity "activity",
        /// Sleep.
        6 Sleep "sleep",
        /// Clinical records, goals, notes, instructions.
        7 Record "record",
        /// The devices' own state.
        8 Device "device",
    }
}

/// A value in a unit that does not measure the vital. The message says which unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{vital} cannot be given in {unit}; use {} or a unit that converts into it", .vital.unit())]
pub struct UnitMismatch {
    /// The vital.
    pub vital: Vital,
    /// The unit that does not fit.
    pub unit: Unit,
}

/// Why a value has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The unit does not measure the vital.
    #[error(transparent)]
    Unit(#[from] UnitMismatch),
    /// The value is too large, or has too many digits, to convert.
    #[error("the value cannot be converted: {0}")]
    Value(#[from] DecimalError),
}

const fn tenths(mantissa: i64) -> Decimal {
    Decimal::new(mantissa, -1)
}

const fn whole(mantissa: i64) -> Decimal {
    Decimal::new(mantissa, 0)
}

/// One line a vital: `code Variant "name": Category, Unit, plausible range, LOINC, MDC;`.
macro_rules! vitals {
    ($($code:literal $variant:ident $name:literal: $category:ident, $unit:ident, $low:expr => $high:expr, $loinc:expr, $mdc:expr;)+) => {
        coded! {
            /// One kind of measured value.
            Vital: u16 = "vital" {
                $(#[doc = concat!("`", $name, "`, in `", stringify!($unit), "`")] $code $variant $name,)+
            }
        }

        impl Vital {
            /// Whose grant opens it.
            pub const fn category(self) -> Category {
                match self { $(Vital::$variant => Category::$category,)+ }
            }

            /// The canonical unit: ranges and thresholds are stated in it, values are judged in it.
            pub const fn unit(self) -> Unit {
                match self { $(Vital::$variant => Unit::$unit,)+ }
            }

            /// The LOINC code, where one means just this vital.
            pub const fn loinc(self) -> Option<&'static str> {
                match self { $(Vital::$variant => $loinc,)+ }
            }

            /// The 32-bit MDC code of ISO/IEEE 11073-10101, where one means just this vital.
            pub const fn mdc(self) -> Option<u32> {
                match self { $(Vital::$variant => $mdc,)+ }
            }

            /// What a living person can have, in the canonical unit, bounds included. Wider than any alarm threshold: a value
            /// outside is more likely a fault of the measurement than of the patient. It is kept and flagged.
            pub const fn plausible(self) -> RangeInclusive<Decimal> {
                match self { $(Vital::$variant => RangeInclusive::new($low, $high),)+ }
            }
        }
    };
}

vitals! {
    1 HeartRate "heart_rate": Cardiac, PerMinute, whole(20) => whole(300), Some("8867-4"), Some(147_842);
    2 PulseRate "pulse_rate": Cardiac, PerMinute, whole(20) => whole(300), Some("8889-8"), Some(149_530);
    3 RrInterval "rr_interval": Cardiac, Millisecond, whole(200) => whole(3_000), Some("8637-1"), Some(147_240);
    4 SystolicBloodPressure "systolic_blood_pressure": Cardiac, MillimetreOfMercury, whole(40) => whole(300), Some("8480-6"), Some(150_021);
    5 DiastolicBloodPressure "diastolic_blood_pressure": Cardiac, MillimetreOfMercury, whole(20) => whole(200), Some("8462-4"), Some(150_022);
    6 MeanArterialPressure "mean_arterial_pressure": Cardiac, MillimetreOfMercury, whole(25) => whole(250), Some("8478-0"), Some(150_023);
    7 HeartRateVariabilitySdnn "heart_rate_variability_sdnn": Cardiac, Millisecond, whole(1) => whole(500), Some("80404-7"), None;
    8 HeartRateVariabilityRmssd "heart_rate_variability_rmssd": Cardiac, Millisecond, whole(1) => whole(500), None, None;
    9 PerfusionIndex "perfusion_index": Cardiac, Percent, Decimal::new(2, -2) => whole(30), Some("61006-3"), Some(150_488);
    10 OxygenSaturation "oxygen_saturation": Respiratory, Percent, whole(40) => whole(100), Some("59408-5"), Some(150_456);
    11 RespiratoryRate "respiratory_rate": Respiratory, PerMinute, whole(3) => whole(80), Some("9279-1"), Some(151_562);
    12 BloodGlucose "blood_glucose": Metabolic, MilligramPerDecilitre, whole(10) => whole(1_000), Some("2339-0"), Some(160_020);
    13 InterstitialGlucose "interstitial_glucose": Metabolic, MilligramPerDecilitre, whole(10) => whole(1_000), Some("99504-3"), Some(160_212);
    14 HemoglobinA1c "hemoglobin_a1c": Metabolic, Percent, whole(3) => whole(20), Some("4548-4"), Some(160_220);
    15 BasalMetabolicRate "basal_metabolic_rate": Metabolic, KilocaloriePerDay, whole(300) => whole(5_000), None, None;
    16 BodyTemperature "body_temperature": Body, Celsius, whole(25) => whole(45), Some("8310-5"), Some(150_364);
    17 SkinTemperature "skin_temperature": Body, Celsius, whole(10) => whole(45), None, None;
    18 BodyWeight "body_weight": Body, Kilogram, tenths(3) => whole(500), Some("29463-7"), Some(188_736);
    19 BodyHeight "body_height": Body, Centimetre, whole(20) => whole(260), Some("8302-2"), Some(188_740);
    20 BodyMassIndex "body_mass_index": Body, KilogramPerSquareMetre, whole(5) => whole(150), Some("39156-5"), Some(188_752);
    21 BodyFatPercentage "body_fat_percentage": Body, Percent, whole(1) => whole(80), Some("41982-0"), Some(188_748);
    22 FatFreeMass "fat_free_mass": Body, Kilogram, tenths(3) => whole(300), Some("73965-6"), Some(188_756);
    23 SoftLeanMass "soft_lean_mass": Body, Kilogram, tenths(3) => whole(300), None, Some(188_760);
    24 BodyWaterMass "body_water_mass": Body, Kilogram, tenths(2) => whole(300), None, Some(188_764);
    25 MuscleMass "muscle_mass": Body, Kilogram, tenths(1) => whole(200), Some("73964-9"), None;
    26 MusclePercentage "muscle_percentage": Body, Percent, whole(5) => whole(95), None, None;
    27 BoneMass "bone_mass": Body, Kilogram, tenths(1) => whole(20), None, None;
    28 BodyImpedance "body_impedance": Body, Ohm, whole(50) => whole(3_000), None, None;
    29 StepCount "step_count": Activity, Steps, whole(0) => whole(200_000), Some("55423-8"), None;
    30 Cadence "cadence": Activity, StepsPerMinute, whole(0) => whole(400), None, None;
    31 Distance "distance": Activity, Metre, whole(0) => whole(500_000), Some("55430-3"), None;
    32 Speed "speed": Activity, MetrePerSecond, whole(0) => whole(40), None, None;
    33 CaloriesBurned "calories_burned": Activity, Kilocalorie, whole(0) => whole(30_000), Some("41981-2"), None;
    34 SleepDuration "sleep_duration": Sleep, Minute, whole(0) => whole(1_440), Some("93832-4"), None;
    35 BatteryLevel "battery_level": Device, Percent, whole(0) => whole(100), None, Some(67_996);
    36 BodyFatMass "body_fat_mass": Body, Kilogram, tenths(1) => whole(300), None, None;
    37 PulseWaveVelocity "pulse_wave_velocity": Cardiac, MetrePerSecond, whole(2) => whole(30), None, None;
}

/// LOINC codes of the same vital beside the one in the table: by the place or position of the measurement, or by the unit
/// (LOINC tells mass from amount of substance). Documents that come in are read by them; what goes out carries the table's code.
const OTHER_LOINC: &[(&str, Vital)] = &[
    ("40443-4", Vital::HeartRate),             // at rest
    ("8459-0", Vital::SystolicBloodPressure),  // sitting
    ("8460-8", Vital::SystolicBloodPressure),  // standing
    ("8461-6", Vital::SystolicBloodPressure),  // lying
    ("8453-3", Vital::DiastolicBloodPressure), // sitting
    ("8454-1", Vital::DiastolicBloodPressure), // standing
    ("8455-8", Vital::DiastolicBloodPressure), // lying
    ("2708-6", Vital::OxygenSaturation),       // in arterial blood; the vital-signs profile asks for it beside 59408-5
    ("8331-1", Vital::BodyTemperature),        // mouth
    ("8333-7", Vital::BodyTemperature),        // ear
    ("8328-7", Vital::BodyTemperature),        // armpit
    ("8332-9", Vital::BodyTemperature),        // rectum
    ("3141-9", Vital::BodyWeight),             // measured
    ("15074-8", Vital::BloodGlucose),          // amount, blood
    ("41653-7", Vital::BloodGlucose),          // mass, capillary, by glucometer
    ("14743-9", Vital::BloodGlucose),          // amount, capillary, by glucometer
    ("2345-7", Vital::BloodGlucose),           // mass, serum or plasma
    ("14749-6", Vital::BloodGlucose),          // amount, serum or plasma
    ("41950-7", Vital::StepCount),             // in 24 hours
];

/// MDC codes of the same vital beside the one in the table.
const OTHER_MDC: &[(u32, Vital)] = &[
    (149_546, Vital::PulseRate),       // by a cuff
    (188_424, Vital::BodyTemperature), // mouth
    (188_428, Vital::BodyTemperature), // ear
    (188_432, Vital::BodyTemperature), // finger
    (160_184, Vital::BloodGlucose),    // capillary whole blood
];

/// mg/dL in one mmol/L of glucose (molar mass 180.156 g/mol).
const GLUCOSE_MG_PER_DL: Decimal = Decimal::new(180_156, -4);

impl Vital {
    /// The vital that a LOINC code means: that of the table, or one that tells the place, the position or the unit as well.
    pub fn from_loinc(code: &str) -> Option<Self> {
        let of_table = Self::ALL.iter().find(|vital| vital.loinc() == Some(code));
        of_table.or_else(|| OTHER_LOINC.iter().find(|(other, _)| *other == code).map(|(_, vital)| vital)).copied()
    }

    /// The vital that a 32-bit MDC code means.
    pub fn from_mdc(code: u32) -> Option<Self> {
        let of_table = Self::ALL.iter().find(|vital| vital.mdc() == Some(code));
        of_table.or_else(|| OTHER_MDC.iter().find(|(other, _)| *other == code).map(|(_, vital)| vital)).copied()
    }

    /// Whether a value of this vital can be given in `unit`.
    pub fn accepts(self, unit: Unit) -> bool {
        unit.quantity() == self.unit().quantity() || self.is_molar(unit)
    }

    /// Fails with a [`UnitMismatch`] unless [`Vital::accepts`] the unit.
    pub fn check_unit(self, unit: Unit) -> Result<(), UnitMismatch> {
        if self.accepts(unit) { Ok(()) } else { Err(UnitMismatch { vital: self, unit }) }
    }

    /// `value` in the canonical unit: exact wherever that is a finite decimal number, else rounded at the ninth decimal.
    pub fn canonical(self, value: Decimal, unit: Unit) -> Result<Decimal, ConversionError> {
        let mismatch = UnitMismatch { vital: self, unit };
        if self.is_molar(unit) {
            let molar = unit.convert(value, Unit::MillimolePerLitre).ok_or(mismatch)??;
            return Ok(molar.checked_mul(GLUCOSE_MG_PER_DL)?);
        }
        Ok(unit.convert(value, self.unit()).ok_or(mismatch)??)
    }

    /// Whether `value` lies in [`Vital::plausible`]. A value too large to convert does not.
    pub fn is_plausible(self, value: Decimal, unit: Unit) -> Result<bool, UnitMismatch> {
        match self.canonical(value, unit) {
            Ok(value) => Ok(self.plausible().contains(&value)),
            Err(ConversionError::Value(_)) => Ok(false),
            Err(ConversionError::Unit(mismatch)) => Err(mismatch),
        }
    }

    /// Glucose is given by amount as well as by mass; its canonical unit is a mass.
    fn is_molar(self, unit: Unit) -> bool {
        matches!(self, Vital::BloodGlucose | Vital::InterstitialGlucose)
            && unit.quantity() == Quantity::AmountConcentration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn every_vital_is_found_by_its_code_and_name_and_has_a_range_in_its_own_unit() {
        for vital in Vital::ALL {
            assert_eq!(Vital::from_code(vital.code()), Some(*vital));
            assert_eq!(vital.as_str().parse(), Ok(*vital));
            assert!(vital.accepts(vital.unit()));
            assert!(vital.plausible().start() < vital.plausible().end(), "{vital}");
        }
        assert!("pulse".parse::<Vital>().is_err());
        assert_eq!(Vital::from_code(0), None);
    }

    #[test]
    fn codes_and_names_on_the_wire_never_change() {
        let table: Vec<String> = Vital::ALL.iter().map(|v| format!("{}={v}", v.code())).collect();
        assert_eq!(
            table.join(" "),
            "1=heart_rate 2=pulse_rate 3=rr_interval 4=systolic_blood_pressure 5=diastolic_blood_pressure 6=mean_arterial_pressure \
             7=heart_rate_variability_sdnn 8=heart_rate_variability_rmssd 9=perfusion_index 10=oxygen_saturation 11=respiratory_rate \
             12=blood_glucose 13=interstitial_glucose 14=hemoglobin_a1c 15=basal_metabolic_rate 16=body_temperature \
             17=skin_temperature 18=body_weight 19=body_height 20=body_mass_index 21=body_fat_percentage 22=fat_free_mass \
             23=soft_lean_mass 24=body_water_mass 25=muscle_mass 26=muscle_percentage 27=bone_mass 28=body_impedance 29=step_count \
             30=cadence 31=distance 32=speed 33=calories_burned 34=sleep_duration 35=battery_level 36=body_fat_mass 37=pulse_wave_velocity"
        );
        let categories: Vec<String> = Category::ALL.iter().map(|c| format!("{}={c}", c.code())).collect();
        assert_eq!(
            categories.join(" "),
            "1=cardiac 2=respiratory 3=metabolic 4=body 5=activity 6=sleep 7=record 8=device"
        );
    }

    #[test]
    fn a_vital_is_found_by_its_codes_and_no_code_means_two() {
        let mut seen = std::collections::BTreeSet::new();
        let loinc =
            Vital::ALL.iter().filter_map(|v| v.loinc().map(|code| (code, *v))).chain(OTHER_LOINC.iter().copied());
        for (code, vital) in loinc {
            assert!(seen.insert(code.to_owned()), "{code} stands twice");
            assert_eq!(Vital::from_loinc(code), Some(vital), "{code}");
        }
        let mdc = Vital::ALL.iter().filter_map(|v| v.mdc().map(|code| (code, *v))).chain(OTHER_MDC.iter().copied());
        for (code, vital) in mdc {
            assert!(seen.insert(code.to_string()), "{code} stands twice");
            assert_eq!(Vital::from_mdc(code), Some(vital), "{code}");
        }
        // Panels are no vital; nor is what nobody measures at home.
        assert_eq!(Vital::from_loinc("85354-9"), None);
        assert_eq!(Vital::from_mdc(150_020), None);
    }

    #[test]
    fn values_are_judged_in_the_canonical_unit_whatever_the_sender_used() {
        for (vital, value, unit, plausible) in [
            (Vital::HeartRate, "72", Unit::BeatsPerMinute, true),
            (Vital::HeartRate, "0", Unit::PerMinute, false),
            (Vital::BodyTemperature, "98.6", Unit::Fahrenheit, true),
            (Vital::BodyTemperature, "98.6", Unit::Celsius, false),
            (Vital::BodyTemperature, "113", Unit::Fahrenheit, true), // exactly 45 Cel
            (Vital::BloodGlucose, "5.5", Unit::MillimolePerLitre, true),
            (Vital::BloodGlucose, "0.0055", Unit::MolePerLitre, true),
            (Vital::SystolicBloodPressure, "16.0", Unit::Kilopascal, true),
            (Vital::BodyWeight, "9223372036854775807", Unit::Pound, false),
            (Vital::StepCount, "1e127", Unit::Steps, false),
        ] {
            assert_eq!(vital.is_plausible(decimal(value), unit), Ok(plausible), "{vital} {value} {unit}");
        }
        assert_eq!(Vital::BloodGlucose.canonical(decimal("5.5"), Unit::MillimolePerLitre).unwrap(), decimal("99.0858"));
    }

    #[test]
    fn a_unit_that_does_not_fit_is_refused_and_the_message_names_one_that_does() {
        let refused = Vital::HeartRate.is_plausible(decimal("72"), Unit::Kilogram).unwrap_err();
        assert_eq!(refused.to_string(), "heart_rate cannot be given in kg; use /min or a unit that converts into it");
        assert!(!Vital::BodyWeight.accepts(Unit::MillimolePerLitre));
        assert!(!Vital::StepCount.accepts(Unit::PerMinute));
    }
}
