use super::*;

#[test]
fn of_a_version_the_major_number_counts() {
    for good in
        ["omh:heart-rate:2.0", "omh:heart-rate:2.x", "omh:heart-rate:2", "omh:heart-rate:2.17", "ieee:time-frame:1.0"]
    {
        assert!(good.parse::<SchemaId>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "omh",
        "omh:heart-rate",
        "heart-rate:2.0",
        "omh:heart-rate:3.0",
        "omh:heart-rate:2.0:1",
        "omh:heart-rate:-2.0",
        "omh:heart-rate:2.0.0",
        "omh:heart-rate:+2",
        "omh:heart-rate:",
        "ieee:heart-rate:2.0",
        "omh:heart-rate:99999999999.0",
    ] {
        assert!(bad.parse::<SchemaId>().is_err(), "{bad}");
    }
}

#[test]
fn every_unit_of_a_vital_measures_it_or_is_one_that_nobody_uses_for_a_body() {
    // What a schema allows and this version refuses, with a typed error.
    let unused =
        ["fg", "pg", "ng", "ug", "Metric Ton", "gr", "Ton", "fm", "pm", "nm", "um", "ps", "ns", "us", "Mo", "yr"];
    let mut measures = 0;
    for schema in schema::SCHEMAS {
        let Body::Members(shape) = &schema.body else { continue };
        for member in shape.members {
            let (Kind::Measured(measure) | Kind::Movement(measure)) = member.kind else { continue };
            measures += 1;
            assert!(measure.bare || !measure.units.is_empty(), "{}", member.name);
            for text in measure.units {
                match Unit::from_sender(text) {
                    Some(unit) => assert!(measure.vital.accepts(unit), "{} in {text}", member.name),
                    None => assert!(unused.contains(text), "{} in {text}", member.name),
                }
            }
        }
    }
    assert!(measures > 40);
}
