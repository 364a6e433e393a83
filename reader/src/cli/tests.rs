use super::*;
use clap::CommandFactory;

const ROOM: &str = "09090909090909090909090909090909";

fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
    Cli::try_parse_from(line.split(' ')).map_err(|e| e.kind())
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn a_grant_is_to_read_or_to_append_and_exactly_one_of_them() {
    let grant = |rest: &str| parse(&format!("ehe grant --room {ROOM} --to x.pub{rest}"));
    let args = |rest: &str| match grant(rest).unwrap().command {
        Command::Grant(args) => args,
        other => panic!("{other:?}"),
    };
    assert_eq!(categories(&args(" --read cardiac,respiratory").read), [Category::Cardiac, Category::Respiratory]);
    assert_eq!(categories(&args(" --read all").read), Category::ALL);
    assert_eq!(categories(&args(" --append").append), Category::ALL);
    assert_eq!(categories(&args(" --append body,body").append), [Category::Body]);
    assert!(grant("").is_err());
    assert!(grant(" --read all --append").is_err());
    assert!(grant(" --read hearts").is_err());
    assert!(grant(" --read all --from 2026-11-20T10:30:00Z").is_err());
    assert_eq!(args(" --read all --from 1970-01-02").from, Some(Hour(24)));
}

#[test]
fn a_delegate_may_be_given_every_right_by_its_name() {
    for (right, name) in ehe::control::Rights::EACH {
        let line = format!("ehe authority delegate --room {ROOM} --to x.pub --may {name}");
        let Command::Authority(AuthorityCommand::Delegate(args)) = parse(&line).unwrap().command else { panic!() };
        assert_eq!(args.may.iter().map(|may| may.right()).collect::<Vec<_>>(), [right]);
    }
    assert_eq!(May::value_variants().len(), ehe::control::Rights::EACH.len());
}

#[test]
fn a_revocation_names_a_grant_or_a_subject() {
    assert!(parse(&format!("ehe revoke --room {ROOM}")).is_err());
    assert!(parse(&format!("ehe revoke --room {ROOM} --subject {ROOM}")).is_ok());
    assert!(parse(&format!("ehe revoke --room {ROOM} --subject {ROOM} --grant {ROOM}{ROOM}")).is_err());
    assert!(parse(&format!("ehe revoke --room {ROOM} --grant {ROOM}")).is_err());
}

#[test]
fn reading_takes_vitals_times_and_one_format() {
    let cli = parse(&format!("ehe read --room {ROOM} --vital heart_rate,body_weight --from 1970-01-02 --csv")).unwrap();
    let Command::Read(args) = cli.command else { panic!("{:?}", cli.command) };
    assert_eq!(args.vital, [Vital::HeartRate, Vital::BodyWeight]);
    assert_eq!(args.from, Some(UnixMs(86_400_000)));
    assert_eq!(args.purpose, None);
    assert!(parse(&format!("ehe read --room {ROOM} --csv --json")).is_err());
    assert!(parse(&format!("ehe read --room {ROOM} --vital pulse")).is_err());
    assert!(parse("ehe read --room 12").is_err());
    assert!(parse(&format!("ehe --json read --room {ROOM} --purpose research")).unwrap().json);
}

#[test]
fn readings_from_after_their_end_and_in_two_formats_are_a_wrong_command_line() {
    let check = |rest: &str| parse(&format!("ehe{rest}")).unwrap().check();
    for command in ["read", "watch"] {
        for (from, until) in [("2026-11-21", "2026-11-20"), ("2026-11-20", "2026-11-20")] {
            let wrong = check(&format!(" {command} --room {ROOM} --from {from} --until {until}")).unwrap_err();
            assert_eq!(wrong.exit(), crate::Exit::Usage);
            assert!(wrong.to_string().contains("--from must lie before --until"), "{wrong}");
        }
        let wrong = check(&format!(" --json {command} --room {ROOM} --csv")).unwrap_err();
        assert_eq!(wrong.exit(), crate::Exit::Usage);
    }
    assert!(check(&format!(" --json read --room {ROOM} --from 2026-11-20 --until 2026-11-21")).is_ok());
}

#[test]
fn a_misspelt_vital_is_answered_with_those_that_there_are() {
    let line = format!("ehe read --room {ROOM} --vital hartrate");
    let why = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
    assert!(why.contains("hartrate") && why.contains("heart_rate, pulse_rate"), "{why}");
}

#[test]
fn a_node_or_gateway_gets_its_identity_elsewhere() {
    assert!(parse("ehe identity new --role patient").is_ok());
    assert!(parse("ehe identity new --role node").is_err());
}
