//! The schemas: one line a name and major version.
//!
//! Minor versions of one major version only add members, so a line has those of all of them. Sources: Open mHealth's schema
//! repository (github.com/openmhealth/schemas, Apache-2.0) and IEEE Std 1752.1-2021.

use ehe::vital::Vital;

use super::frame::{DURATION_UNITS, Rule};

/// One name and major version.
#[derive(Debug)]
pub(super) struct Schema {
    namespace: &'static str,
    name: &'static str,
    major: u8,
    pub(super) body: Body,
}

/// What a body is.
#[derive(Debug)]
pub(super) enum Body {
    /// An object with these members.
    Members(Shape),
    /// A value of this kind, no object of members.
    Alone(Kind),
    /// A sample of HealthKit.
    HealthKit,
}

/// Members, and what is required of the time.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) members: &'static [Member],
    pub(super) times: Times,
}

/// What is required of `effective_time_frame`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Times {
    Optional(Rule),
    Required(Rule),
    /// Required, and not a moment.
    Interval(Rule),
}

/// A member of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// What a member's value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A vital.
    Measured(&'static Measure),
    /// A value with one of these units, or with any.
    Quantity(&'static [&'static str]),
    /// How often somebody moved, by any unit: a vital if it counts steps.
    Movement(&'static Measure),
    Number,
    Integer,
    Truth,
    Text,
    /// One of these.
    Words(&'static [&'static str]),
    DateTime,
    Frame(Rule),
    Interval(Rule),
}

/// A vital's value.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) vital: Vital,
    pub(super) units: &'static [&'static str],
    /// A number without a unit.
    pub(super) bare: bool,
}

const MASS: &[&str] = &["fg", "pg", "ng", "ug", "mg", "g", "kg", "Metric Ton", "gr", "oz", "lb", "Ton"];
const LENGTH: &[&str] = &["fm", "pm", "nm", "um", "mm", "cm", "m", "km", "in", "ft", "yd", "mi"];
const TEMPERATURE: &[&str] = &["K", "F", "C"];
const STATISTICS: &[&str] = &[
    "average",
    "maximum",
    "minimum",
    "standard deviation",
    "variance",
    "sum",
    "median",
    "count",
    "quartile deviation",
    "20th percentile",
    "80th percentile",
    "lower quartile",
    "upper quartile",
    "1st quintile",
    "2nd quintile",
    "3rd quintile",
    "4th quintile",
];
const MEALS: &[&str] = &[
    "fasting",
    "not fasting",
    "before meal",
    "after meal",
    "before breakfast",
    "after breakfast",
    "before lunch",
    "after lunch",
    "before dinner",
    "after dinner",
    "2 hours postprandial",
    "not related to meals",
    "with meal",
    "with food",
];
const POSTURES: &[&str] = &["sitting", "lying down", "standing", "semi-recumbent"];
const BODY_LOCATIONS: &[&str] = &[
    "left ankle",
    "right ankle",
    "left hip",
    "right hip",
    "left thigh",
    "right thigh",
    "left thorax",
    "middle left thorax",
    "left upper arm",
    "right upper arm",
    "left wrist",
    "right wrist",
];
const TEMPERATURE_LOCATIONS_1: &[&str] =
    &["oral", "rectal", "vaginal", "axillary", "otic", "wrist", "chest", "temporal"];
const TEMPERATURE_LOCATIONS: &[&str] =
    &["axillary", "finger", "forehead", "oral", "rectal", "temporal artery", "toe", "tympanic", "wrist", "vagina"];
const SPECIMENS_1: &[&str] = &["interstitial fluid", "capillary blood", "plasma", "serum", "tears", "whole blood"];
const SPECIMENS: &[&str] =
    &["breath", "capillary blood", "interstitial fluid", "lacrimal fluid", "saliva", "sweat", "tears", "urine"];
const HEALTH_KIT_CATEGORIES: &[&str] = &[
    "HKCategoryTypeIdentifierSleepAnalysis",
    "HKCategoryTypeIdentifierAppleStandHour",
    "HKCategoryTypeIdentifierCervicalMucusQuality",
    "HKCategoryTypeIdentifierOvulationTestResult",
    "HKCategoryTypeIdentifierMenstrualFlow",
    "HKCategoryTypeIdentifierIntermenstrualBleeding",
    "HKCategoryTypeIdentifierSexualActivity",
];

macro_rules! measure {
    ($vital:ident, $units:expr) => {
        Kind::Measured(&Measure { vital: Vital::$vital, units: $units, bare: false })
    };
    ($vital:ident) => {
        Kind::Measured(&Measure { vital: Vital::$vital, units: &[], bare: true })
    };
}

const HEART_RATE: Kind = measure!(HeartRate, &["beats/min"]);
const RESPIRATORY_RATE: Kind = measure!(RespiratoryRate, &["breaths/min"]);
const RR_INTERVAL: Kind = measure!(RrInterval, &["ms"]);
const SYSTOLIC: Kind = measure!(SystolicBloodPressure, &["mmHg"]);
const DIASTOLIC: Kind = measure!(DiastolicBloodPressure, &["mmHg"]);
const OXYGEN: Kind = measure!(OxygenSaturation, &["%"]);
const GLUCOSE: Kind = measure!(BloodGlucose, &["mg/dL", "mmol/L"]);
const BODY_FAT: Kind = measure!(BodyFatPercentage, &["%"]);
const HEIGHT: Kind = measure!(BodyHeight, LENGTH);
const WEIGHT: Kind = measure!(BodyWeight, MASS);
const BODY_TEMPERATURE: Kind = measure!(BodyTemperature, TEMPERATURE);
const ENERGY: Kind = measure!(CaloriesBurned, &["kcal"]);
const DISTANCE: Kind = measure!(Distance, LENGTH);
const STEPS: Kind = measure!(StepCount, &["steps"]);
const MOVEMENT: Kind = Kind::Movement(&Measure { vital: Vital::StepCount, units: &["steps"], bare: false });
const SLEEP: Kind = measure!(SleepDuration, &["sec", "min", "h"]);
const SLEEP_ANY: Kind = measure!(SleepDuration, DURATION_UNITS);

const fn must(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, required: true }
}

const fn may(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, required: false }
}

const STATISTIC: Member = may("descriptive_statistic", Kind::Words(STATISTICS));
const DENOMINATOR: Member = may("descriptive_statistic_denominator", Kind::Text);
const NOTES: Member = may("user_notes", Kind::Text);
const MEAL: Member = may("temporal_relationship_to_meal", Kind::Words(MEALS));
const AROUND_SLEEP: Member =
    may("temporal_relationship_to_sleep", Kind::Words(&["before sleeping", "during sleep", "on waking"]));
const AROUND_ACTIVITY: Member = may(
    "temporal_relationship_to_physical_activity",
    Kind::Words(&["at rest", "active", "before exercise", "after exercise", "during exercise"]),
);
const POSTURE: Member = may("body_posture", Kind::Words(POSTURES));
const ACTIVITY: Member = may("activity_name", Kind::Text);
const INTENSITY: Member = may("reported_activity_intensity", Kind::Words(&["light", "moderate", "vigorous"]));

const fn members(
    namespace: &'static str,
    name: &'static str,
    major: u8,
    times: Times,
    members: &'static [Member],
) -> Schema {
    Schema { namespace, name, major, body: Body::Members(Shape { members, times }) }
}

const fn alone(namespace: &'static str, name: &'static str, kind: Kind) -> Schema {
    Schema { namespace, name, major: 1, body: Body::Alone(kind) }
}

const OPTIONAL: Times = Times::Optional(Rule::Omh);
const REQUIRED: Times = Times::Required(Rule::Omh);
const REQUIRED_IEEE: Times = Times::Required(Rule::Ieee);
const INTERVAL: Times = Times::Interval(Rule::Omh);
const INTERVAL_IEEE: Times = Times::Interval(Rule::Ieee);

#[rustfmt::skip]
pub(super) const SCHEMAS: &[Schema] = &[
    // cardiac
    members("omh", "heart-rate", 1, OPTIONAL, &[must("heart_rate", HEART_RATE), STATISTIC, AROUND_ACTIVITY, AROUND_SLEEP, NOTES]),
    members("omh", "heart-rate", 2, REQUIRED, &[must("heart_rate", HEART_RATE), STATISTIC, AROUND_ACTIVITY, AROUND_SLEEP]),
    members("omh", "rr-interval", 1, OPTIONAL, &[must("rr_interval", RR_INTERVAL), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "blood-pressure", 1, OPTIONAL, &[must("systolic_blood_pressure", SYSTOLIC), must("diastolic_blood_pressure", DIASTOLIC),
        may("position_during_measurement", Kind::Words(&["sitting", "lying down", "standing"])), STATISTIC, NOTES]),
    members("omh", "blood-pressure", 2, OPTIONAL, &[must("systolic_blood_pressure", SYSTOLIC), must("diastolic_blood_pressure", DIASTOLIC),
        POSTURE, STATISTIC, NOTES]),
    members("omh", "blood-pressure", 3, REQUIRED, &[must("systolic_blood_pressure", SYSTOLIC), must("diastolic_blood_pressure", DIASTOLIC),
        POSTURE, may("measurement_location", Kind::Words(BODY_LOCATIONS)), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "blood-pressure", 4, REQUIRED_IEEE, &[must("systolic_blood_pressure", SYSTOLIC), must("diastolic_blood_pressure", DIASTOLIC),
        POSTURE, may("measurement_location", Kind::Words(BODY_LOCATIONS)), STATISTIC, AROUND_ACTIVITY]),
    alone("omh", "systolic-blood-pressure", SYSTOLIC),
    alone("omh", "diastolic-blood-pressure", DIASTOLIC),
    // respiratory
    members("omh", "oxygen-saturation", 1, OPTIONAL, OXYGEN_MEMBERS),
    members("omh", "oxygen-saturation", 2, REQUIRED, OXYGEN_MEMBERS),
    members("omh", "respiratory-rate", 1, OPTIONAL, &[must("respiratory_rate", RESPIRATORY_RATE), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "respiratory-rate", 2, REQUIRED, &[must("respiratory_rate", RESPIRATORY_RATE), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "breath-carbon-monoxide", 1, OPTIONAL, &[must("breath_carbon_monoxide", Kind::Quantity(&["ppm"])), STATISTIC]),
    members("omh", "inspiratory-time", 1, OPTIONAL, &[must("inspiratory_time", Kind::Quantity(&["sec"])), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "expiratory-time", 1, OPTIONAL, &[must("expiratory_time", Kind::Quantity(&["sec"])), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "ventilation-cycle-time", 1, REQUIRED, &[must("ventilation_cycle_time", Kind::Quantity(&["sec"])), STATISTIC, AROUND_ACTIVITY]),
    members("omh", "minute-volume", 1, OPTIONAL, &[must("minute_volume", Kind::Quantity(&["mL/min", "L/min"])), STATISTIC, AROUND_ACTIVITY,
        may("minute_volume_type", Kind::Words(&["inspiratory", "expiratory", "total"]))]),
    // metabolic
    members("omh", "blood-glucose", 1, OPTIONAL, &[must("blood_glucose", GLUCOSE),
        may("blood_specimen_type", Kind::Words(&["whole blood", "plasma", "serum"])), MEAL, AROUND_SLEEP, STATISTIC, NOTES]),
    members("omh", "blood-glucose", 2, OPTIONAL, &[must("blood_glucose", GLUCOSE), may("specimen_source", Kind::Words(SPECIMENS_1)),
        MEAL, AROUND_SLEEP, STATISTIC, NOTES]),
    members("omh", "blood-glucose", 3, REQUIRED, &[must("blood_glucose", GLUCOSE), may("specimen_source", Kind::Words(SPECIMENS)),
        MEAL, AROUND_SLEEP, STATISTIC]),
    members("omh", "blood-glucose", 4, REQUIRED_IEEE, &[must("blood_glucose", GLUCOSE), may("specimen_source", Kind::Words(SPECIMENS)),
        MEAL, AROUND_SLEEP, STATISTIC]),
    // body
    members("omh", "body-weight", 1, OPTIONAL, &[must("body_weight", WEIGHT), STATISTIC]),
    members("omh", "body-weight", 2, REQUIRED, &[must("body_weight", WEIGHT), STATISTIC]),
    members("omh", "body-weight", 3, REQUIRED_IEEE, &[must("body_weight", WEIGHT), STATISTIC]),
    members("omh", "body-height", 1, OPTIONAL, &[must("body_height", HEIGHT), STATISTIC]),
    members("omh", "body-height", 2, REQUIRED_IEEE, &[must("body_height", HEIGHT), STATISTIC]),
    members("omh", "body-mass-index", 1, OPTIONAL, &[must("body_mass_index", measure!(BodyMassIndex, &["kg/m2"])), STATISTIC]),
    members("omh", "body-mass-index", 2, REQUIRED, &[must("body_mass_index", measure!(BodyMassIndex, &["kg/m^2"])), STATISTIC]),
    members("omh", "body-mass-index", 3, REQUIRED_IEEE, &[must("body_mass_index", measure!(BodyMassIndex, &["kg/m^2"])), STATISTIC]),
    members("omh", "body-fat-percentage", 1, OPTIONAL, &[must("body_fat_percentage", BODY_FAT), STATISTIC]),
    members("omh", "body-fat-percentage", 2, REQUIRED_IEEE, &[must("body_fat_percentage", BODY_FAT), STATISTIC]),
    members("omh", "body-temperature", 1, OPTIONAL, &[must("body_temperature", BODY_TEMPERATURE), STATISTIC,
        may("measurement_location", Kind::Words(TEMPERATURE_LOCATIONS_1))]),
    members("omh", "body-temperature", 2, OPTIONAL, TEMPERATURE_MEMBERS),
    members("omh", "body-temperature", 3, REQUIRED, TEMPERATURE_MEMBERS),
    members("omh", "body-temperature", 4, REQUIRED_IEEE, TEMPERATURE_MEMBERS),
    // activity
    members("omh", "step-count", 1, OPTIONAL, &[must("step_count", measure!(StepCount))]),
    members("omh", "step-count", 2, INTERVAL, &[must("step_count", measure!(StepCount)), STATISTIC, DENOMINATOR]),
    members("omh", "step-count", 3, INTERVAL, &[must("step_count", STEPS), STATISTIC, DENOMINATOR]),
    members("omh", "calories-burned", 1, OPTIONAL, &[must("kcal_burned", ENERGY), ACTIVITY]),
    members("omh", "calories-burned", 2, INTERVAL, &[must("kcal_burned", ENERGY), ACTIVITY, STATISTIC, DENOMINATOR]),
    members("omh", "physical-activity", 1, OPTIONAL, &[must("activity_name", Kind::Text), may("distance", DISTANCE), may("kcal_burned", ENERGY),
        INTENSITY, may("met_value", Kind::Number)]),
    members("ieee", "physical-activity", 1, REQUIRED_IEEE, &[must("activity_name", Kind::Text), may("distance", DISTANCE), may("kcal_burned", ENERGY),
        may("base_movement_quantity", MOVEMENT), may("duration", Kind::Quantity(DURATION_UNITS)), INTENSITY, may("met_value", Kind::Number), STATISTIC]),
    members("omh", "minutes-moderate-activity", 1, OPTIONAL, &[must("minutes_moderate_activity", Kind::Quantity(&["min"]))]),
    // sleep
    members("omh", "sleep-duration", 1, OPTIONAL, &[must("sleep_duration", SLEEP), NOTES]),
    members("omh", "sleep-duration", 2, INTERVAL, &[must("sleep_duration", SLEEP), STATISTIC, DENOMINATOR]),
    members("omh", "total-sleep-time", 1, INTERVAL, &[must("total_sleep_time", SLEEP_ANY), STATISTIC, DENOMINATOR]),
    members("ieee", "total-sleep-time", 1, INTERVAL_IEEE, &[must("total_sleep_time", SLEEP_ANY), STATISTIC, DENOMINATOR]),
    members("omh", "sleep-episode", 1, INTERVAL, EPISODE_MEMBERS),
    members("ieee", "sleep-episode", 1, INTERVAL_IEEE, EPISODE_MEMBERS),
    // around the body
    members("omh", "ambient-temperature", 1, OPTIONAL, &[must("ambient_temperature", Kind::Quantity(TEMPERATURE)), STATISTIC]),
    members("ieee", "ambient-temperature", 1, REQUIRED_IEEE, &[must("ambient_temperature", Kind::Quantity(TEMPERATURE)), STATISTIC]),
    members("ieee", "ambient-sound", 1, REQUIRED_IEEE, &[must("ambient_sound", Kind::Quantity(&["dB"])), STATISTIC]),
    members("ieee", "ambient-light", 1, REQUIRED_IEEE, &[must("ambient_light", Kind::Quantity(&["lx"])), STATISTIC]),
    // HealthKit
    Schema { namespace: "granola", name: "hk-quantity-sample", major: 1, body: Body::HealthKit },
    members("granola", "hk-category-sample", 1, REQUIRED, &[must("category_type", Kind::Words(HEALTH_KIT_CATEGORIES)), must("category_value", Kind::Text)]),
    // parts of the others
    alone("omh", "date-time", Kind::DateTime),
    alone("omh", "time-frame", Kind::Frame(Rule::Omh)),
    alone("omh", "time-interval", Kind::Interval(Rule::Omh)),
    alone("omh", "unit-value", Kind::Quantity(&[])),
    alone("omh", "body-posture", Kind::Words(POSTURES)),
    alone("ieee", "date-time", Kind::DateTime),
    alone("ieee", "time-frame", Kind::Frame(Rule::Ieee)),
    alone("ieee", "time-interval", Kind::Interval(Rule::Ieee)),
    alone("ieee", "unit-value", Kind::Quantity(&[])),
    alone("ieee", "body-posture", Kind::Words(POSTURES)),
];

const OXYGEN_MEMBERS: &[Member] = &[
    must("oxygen_saturation", OXYGEN),
    may("system", Kind::Words(&["peripheral capillary"])),
    may("supplemental_oxygen_flow_rate", Kind::Quantity(&["L/min"])),
    may("oxygen_therapy_mode_of_administration", Kind::Words(&["nasal cannula"])),
    may("measurement_method", Kind::Words(&["pulse oximetry"])),
    STATISTIC,
];
const TEMPERATURE_MEMBERS: &[Member] = &[
    must("body_temperature", BODY_TEMPERATURE),
    may("measurement_location", Kind::Words(TEMPERATURE_LOCATIONS)),
    AROUND_SLEEP,
    STATISTIC,
];
const EPISODE_MEMBERS: &[Member] = &[
    may("total_sleep_time", SLEEP_ANY),
    may("latency_to_sleep_onset", Kind::Quantity(DURATION_UNITS)),
    may("latency_to_arising", Kind::Quantity(DURATION_UNITS)),
    may("wake_after_sleep_onset", Kind::Quantity(DURATION_UNITS)),
    may("number_of_awakenings", Kind::Integer),
    may("is_main_sleep", Kind::Truth),
    may("sleep_maintenance_efficiency_percentage", Kind::Quantity(&["%"])),
];

/// The schema of a name and version. Of the version the major number counts (`2.0`, `2.x`, `2`).
pub(super) fn find(namespace: &str, name: &str, version: &str) -> Option<&'static Schema> {
    let (major, minor) = version.split_once('.').unwrap_or((version, ""));
    let digits = |text: &str| text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit());
    if !(digits(minor) || minor == "x") || !digits(major) {
        return None;
    }
    let major: u8 = major.parse().ok()?;
    // IEEE 1752.1 documents name their namespace in either way.
    let namespace = if namespace == "ieee-1752" { "ieee" } else { namespace };
    SCHEMAS.iter().find(|schema| schema.name == name && schema.namespace == namespace && schema.major == major)
}
