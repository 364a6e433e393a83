use super::*;

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn answers(input: &[u8]) -> Vec<serde_json::Value> {
    let mut output = Vec::new();
    run(&Decoder::new().unwrap(), &mut &*input, &mut output, &|_, _| (), &|| NOW).unwrap();
    String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn answer(row: &serde_json::Value) -> serde_json::Value {
    let mut answers = answers(format!("{row}\n").as_bytes());
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn kind(answer: &serde_json::Value) -> &str {
    answer["error"]["kind"].as_str().unwrap()
}

#[test]
fn a_message_is_answered_with_its_readings_and_fields() {
    let row = serde_json::json!({
        "id": "a", "topic": "x", "content_type": "application/senml+json", "time_unix": 1_700_000_000.5,
        "input_text": "[{\"n\":\"x:body_temperature\",\"u\":\"Cel\",\"v\":36.60,\"t\":-1}]"
    });
    let answer = answer(&row);
    assert_eq!(
        answer.to_string(),
        "{\"fields\":{\"resolved\":[{\"n\":\"x:body_temperature\",\"t\":1699999999.500,\"u\":\"Cel\",\"v\":36.60}]},\"id\":\"a\",\
         \"readings\":[{\"time\":{\"method\":\"receipt_counted_back\",\"start\":\"2023-11-14T22:13:19.5Z\"},\"unit\":\"Cel\",\
         \"value\":36.60,\"vital\":\"body_temperature\"}]}"
    );
}

#[test]
fn a_topic_a_content_type_a_schema_or_the_document_itself_says_what_it_is() {
    let heart_rate =
        r#"{"heart_rate":{"value":61,"unit":"beats/min"},"effective_time_frame":{"date_time":"2023-02-05T07:25:00Z"}}"#;
    let observation = r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},"valueQuantity":{"value":61,"code":"/min"}}"#;
    let point = format!(
        r#"{{"header":{{"schema_id":{{"namespace":"omh","name":"heart-rate","version":"2.0"}}}},"body":{heart_rate}}}"#
    );
    for (row, vital) in [
        (serde_json::json!({"schema": "omh:heart-rate:2.0", "input_text": heart_rate}), "heart_rate"),
        (serde_json::json!({"input_text": point}), "heart_rate"),
        (serde_json::json!({"input_text": observation}), "heart_rate"),
        (
            serde_json::json!({"content_type": "application/fhir+json; charset=utf-8", "input_text": observation}),
            "heart_rate",
        ),
        (
            serde_json::json!({"topic": "vendor-cloud/ihealth", "input_text": "{\"BODataList\":[{\"BO\":97}]}"}),
            "oxygen_saturation",
        ),
        (
            serde_json::json!({"topic": "home/OpenMQTTGateway/BTtoMQTT/AABBCCDDEEFF", "input_text": "{\"type\":\"BODY\",\"bpm\":70}"}),
            "heart_rate",
        ),
        (serde_json::json!({"content_type": "application/senml+cbor", "input_hex": "81a300647820787801617602"}), ""),
    ] {
        let answer = answer(&row);
        assert_eq!(answer["readings"][0]["vital"].as_str().unwrap_or(""), vital, "{row}: {answer}");
    }
    assert_eq!(kind(&answer(&serde_json::json!({"input_text": heart_rate}))), "unsupported");
    assert_eq!(
        kind(&answer(&serde_json::json!({"schema": "omh:telepathy:1.0", "input_text": heart_rate}))),
        "unsupported"
    );
    assert_eq!(
        kind(&answer(&serde_json::json!({"content_type": "image/png", "input_text": heart_rate}))),
        "unsupported"
    );
}

#[test]
fn a_line_that_cannot_be_read_gets_an_error_and_the_next_one_goes_on() {
    let good = r#"{"id": 7, "topic": "a/b/BTtoMQTT/c", "input_text": "{}"}"#;
    let long = format!("{{\"id\": 2, \"input_text\": \"{}\"}}", "x".repeat(LINE_MAX_BYTES));
    let deep = format!("{{\"id\": {}", "[".repeat(100_000));
    let lines = [
        "not json",
        &long,
        "",
        "[1]",
        &deep,
        r#"{"id": 3}"#,
        r#"{"id": 4, "input_hex": "abc"}"#,
        r#"{"id": 5, "input_hex": "zz"}"#,
        r#"{"id": 6, "input_text": "{}", "input_hex": ""}"#,
        r#"{"id": 6, "input_text": "{}", "time_unix": -1}"#,
        good,
    ];
    let mut input = lines.join("\n").into_bytes();
    input.extend_from_slice(b"\n\xff\xfe\n");
    input.extend_from_slice(good.as_bytes());
    let answers = answers(&input);
    let kinds: Vec<&str> = answers.iter().map(|answer| answer["error"]["kind"].as_str().unwrap_or("good")).collect();
    assert_eq!(
        kinds,
        [
            "malformed",
            "too_large",
            "malformed",
            "malformed",
            "malformed",
            "malformed",
            "malformed",
            "malformed",
            "malformed",
            "good",
            "malformed",
            "good"
        ]
    );
    assert_eq!(answers[4]["id"], 3);
    assert_eq!(answers[11]["id"], 7);
}

#[test]
fn what_comes_over_bluetooth_is_not_supported_and_says_so() {
    for row in [
        serde_json::json!({"id": 1, "kind": "gatt", "uuid": "0x2A37", "input_hex": "0648"}),
        serde_json::json!({"id": 1, "kind": "adv", "service_data": {"181d": "22"}}),
        serde_json::json!({"id": 1, "hci_event_hex": "04"}),
    ] {
        assert_eq!(kind(&answer(&row)), "unsupported", "{row}");
    }
}

#[test]
fn a_time_that_only_the_receipt_gives_is_said_where_the_receipt_is_known() {
    let row = |time: serde_json::Value| serde_json::json!({"topic": "a/b/BTtoMQTT/c", "input_text": "{\"type\":\"BODY\",\"bpm\":70}", "time_unix": time});
    let time = |answer: serde_json::Value| answer["readings"][0]["time"].clone();
    assert_eq!(time(answer(&row(serde_json::Value::Null))), serde_json::json!({"start": null, "method": "receipt"}));
    let known = serde_json::json!({"start": "2023-11-14T22:13:20Z", "method": "receipt"});
    assert_eq!(time(answer(&row(1_700_000_000.into()))), known);
}

#[test]
fn a_configuration_s_own_routes_decide_if_one_is_given() {
    let text = "credentials_dir = '/c'\ndata_dir = '/d'\n[[mqtt]]\n[[mqtt.subscription]]\ntopic = 'scale/+'\ndevice = '{1}'\nmapping = 'm'\n\
                [[mapping]]\nname = 'm'\n[[mapping.value]]\npath = 'w'\nvital = 'body_weight'\n";
    let checked = crate::config::Config::parse(text, std::path::Path::new("t")).unwrap().check().unwrap();
    let decoder = Decoder::configured(&checked).unwrap();
    let line = decoder.line(1, br#"{"id":1,"topic":"scale/a","input_text":"{\"w\":72.10}"}"#, &|| NOW).json;
    assert!(line.contains("\"value\":72.10,\"unit\":\"kg\""), "{line}");
    let line = decoder.line(1, br#"{"id":1,"topic":"elsewhere","input_text":"{}"}"#, &|| NOW).json;
    assert!(line.contains("\"kind\":\"no_route\""), "{line}");
}

#[test]
fn a_replay_in_the_configuration_answers_for_no_topic_of_a_broker() {
    let mapping = "[[mapping]]\nname = 'm'\n[[mapping.value]]\npath = 'w'\nvital = 'body_weight'\n";
    let replay = "[[replay]]\nname = 'a'\nfile = '/r'\nformat = 'json_lines'\ndevice = 'r'\nmessage = 'theengs'\n";
    let broker = "[[mqtt]]\n[[mqtt.subscription]]\ntopic = 'scale/+'\ndevice = '{1}'\nmapping = 'm'\n";
    let decoder = |parts: &str| {
        let text = format!("credentials_dir = '/c'\ndata_dir = '/d'\n{parts}{mapping}");
        let checked = crate::config::Config::parse(&text, std::path::Path::new("t")).unwrap().check().unwrap();
        Decoder::configured(&checked).unwrap()
    };
    let both = decoder(&format!("{replay}{broker}"));
    let line = both.line(1, br#"{"id":1,"topic":"scale/a","input_text":"{\"w\":72.10}"}"#, &|| NOW).json;
    assert!(line.contains("\"value\":72.10,\"unit\":\"kg\""), "{line}");
    let elsewhere = br#"{"id":1,"topic":"elsewhere","input_text":"{}"}"#;
    let line = both.line(1, elsewhere, &|| NOW).json;
    assert!(line.contains("\"kind\":\"no_route\""), "{line}");
    let line = decoder(replay).line(1, elsewhere, &|| NOW).json;
    assert!(!line.contains("no_route"), "with replays alone, theirs: {line}");
}

#[test]
fn every_error_is_told_with_the_number_of_its_line_in_the_whole_input() {
    let mut input =
        b"\n{\"id\":7,\"topic\":\"a/b/BTtoMQTT/c\",\"input_text\":\"{\\\"type\\\":\\\"BODY\\\",\\\"bpm\\\":70}\"}\n"
            .to_vec();
    input.extend(b"  \nrubbish\n{\"id\":8}\n{\"id\":\n");
    input.extend(vec![b'x'; LINE_MAX_BYTES + 1]);
    input.extend(b"\n{\"id\": tru");
    let (told, mut output) = (std::cell::RefCell::new(Vec::new()), Vec::new());
    let note = |line, kind| told.borrow_mut().push((line, kind));
    run(&Decoder::new().unwrap(), &mut &*input, &mut output, &note, &|| NOW).unwrap();
    let malformed = "malformed";
    let wanted = [(4, malformed), (5, malformed), (6, malformed), (7, "too_large"), (8, malformed)];
    assert_eq!(told.into_inner(), wanted);
    // A line without an id is found by its answer, too.
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.lines().count(), 6);
    for message in [
        "expected value at line 4 column 1",
        "neither input_text nor input_hex",
        "EOF while parsing a value at line 6 column 6",
    ] {
        assert!(output.contains(&format!("\"{message}\"")), "{message}: {output}");
    }
    assert!(output.ends_with("column 10\"}}\n") && output.contains("at line 8 column"), "{output}");
}
