use proptest::prelude::*;
use serde_json::json;

use super::*;

fn found(path: &str, document: &Value) -> Result<Vec<String>, AdapterError> {
    let mut values = Vec::new();
    path.parse::<Path>().unwrap().find(document, &mut |found| {
        values.push(found.value().to_string());
        Ok(())
    })?;
    Ok(values)
}

#[test]
fn a_path_finds_every_value_that_it_names() {
    let document = json!({
        "bp": {"sys": 120, "dia": 80},
        "samples": [{"hr": 60, "t": 1}, {"hr": null, "t": 2}, {"t": 3}, {"hr": 61, "t": 4}],
        "data": [{"type": "temp", "value": 36.5}, {"type": 7, "value": 1}, 5, {"type": "temp", "value": 36.6}],
        "rows": [[1, 2], [3]],
        "a.b": {"c d": 9},
        "valid": true,
    });
    for (path, want) in [
        ("bp.sys", &["120"][..]),
        ("$.bp.dia", &["80"]),
        (".bp.dia", &["80"]),
        ("bp.pulse", &[]),
        ("nothing.at.all", &[]),
        ("samples[*].hr", &["60", "null", "61"]),
        ("samples[3].hr", &["61"]),
        ("samples[9].hr", &[]),
        ("data[type=temp].value", &["36.5", "36.6"]),
        ("data[type=7.0].value", &["1"]),
        ("data[type=\"7\"].value", &[]),
        ("rows[*][*]", &["1", "2", "3"]),
        ("\"a.b\".\"c d\"", &["9"]),
        ("[valid=true].bp.sys", &["120"]),
        ("[valid=false].bp.sys", &[]),
        ("data[type=temp][value=36.60].value", &["36.6"]),
    ] {
        assert_eq!(found(path, &document).unwrap(), want, "{path}");
    }
    assert_eq!(found("$", &json!(72)).unwrap(), ["72"]);
    assert_eq!(found("[*]", &json!([1, 2])).unwrap(), ["1", "2"]);
}

#[test]
fn a_path_through_something_else_says_what_it_expected() {
    let document = json!({"bp": 120, "list": [1]});
    for (path, expected, what) in [
        ("bp.sys", "an object", "a number"),
        ("bp[*]", "an array", "a number"),
        ("list.hr", "an object", "an array"),
        ("bp[a=1]", "an array or object", "a number"),
    ] {
        let want = AdapterError::Shape { path: path.into(), expected, found: what };
        assert_eq!(found(path, &document), Err(want));
    }
}

#[test]
fn a_path_outside_the_grammar_is_refused_with_the_place() {
    for (path, at) in [
        ("a..b", 2),
        ("a.", 2),
        ("a[", 2),
        ("a[*", 3),
        ("a[x]", 2),
        ("a[x=]", 4),
        ("a[-1]", 2),
        ("a b", 1),
        ("\"a", 1),
        ("a[*]b", 4),
        ("$a b", 2),
    ] {
        assert!(
            matches!(path.parse::<Path>(), Err(PathError::Syntax { at: found, .. }) if found == at),
            "{path}: {:?}",
            path.parse::<Path>()
        );
    }
    assert_eq!("".parse::<Path>(), Err(PathError::Empty));
    assert_eq!("a".repeat(257).parse::<Path>(), Err(PathError::TooLong { found: 257 }));
    assert_eq!("a.".repeat(16).trim_end_matches('.').parse::<Path>().map(|p| p.steps.len()), Ok(16));
    assert_eq!("a.".repeat(17).trim_end_matches('.').parse::<Path>(), Err(PathError::TooManySteps));
}

#[test]
fn a_second_path_stays_in_the_element_of_the_first() {
    let document = json!({
        "ts": 9,
        "samples": [{"hr": 60, "at": {"t": 1}}, {"hr": 61, "at": {"t": 2}}],
        "hr": [70, 71, 72], "t": [5, 6],
        "data": [{"type": "temp", "value": 36, "unit": "C"}, {"type": "clock", "value": 8}],
    });
    for (value, beside, want) in [
        ("samples[*].hr", "samples[*].at.t", &[Some("1"), Some("2")][..]),
        ("samples[*].hr", "ts", &[Some("9"), Some("9")]),
        ("hr[*]", "t[*]", &[Some("5"), Some("6"), None]),
        ("data[type=temp].value", "data[type=temp].unit", &[Some("\"C\"")]),
        ("data[type=temp].value", "data[type=clock].value", &[Some("8")]),
        ("samples[*].hr", "t[1]", &[Some("6"), Some("6")]),
    ] {
        let (path, second): (Path, Path) = (value.parse().unwrap(), beside.parse().unwrap());
        let mut got = Vec::new();
        let shared = path.shared(&second);
        path.find(&document, &mut |found| {
            got.push(second.beside(found, shared)?.map(Value::to_string));
            Ok(())
        })
        .unwrap();
        assert_eq!(got, want.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>(), "{value} {beside}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_path_or_a_typed_error(text in "[a-c0-9$.\\[\\]*=\" é]{0,20}") {
        let _ = text.parse::<Path>();
    }
}
