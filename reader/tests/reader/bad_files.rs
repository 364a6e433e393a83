//! `ehe` and files and command lines that it should never have been given. No node runs: nothing here gets that far.

use std::fs;

use crate::spoil::{self, Spoilt};
use crate::support::World;
use certs::Role;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ehe");
const FAULT: [i32; 1] = [1];
const ROOM: &str = "00112233445566778899aabbccddeeff";

#[test]
fn every_file_may_be_missing_torn_huge_or_no_file_and_the_message_names_it() {
    let world = World::new(&[("ann", Role::Patient), ("doctor", Role::Clinician)]);
    let folder = world.path("");
    let each = |line: &str, file: &str, ways: &[Spoilt], fine: &dyn Fn(Spoilt) -> bool| {
        spoil::each(PROGRAM, line, &folder, file, ways, &FAULT, fine);
    };
    let none = |_: Spoilt| false;
    let (any, secret) = (Spoilt::ANY, Spoilt::secret());
    let rooms = "--home ann --timeout 1 rooms";
    each(rooms, "ann/identity.json", &secret, &none);
    each(rooms, "ann/channel.key", &secret, &none);
    for file in ["ann/channel.crt", "ann/ca.crt", "ann/charter"] {
        each(rooms, file, &any, &none);
    }
    each("--home ann identity show", "ann/identity.pub", &any, &none);
    each("--home ann identity passphrase --no-passphrase", "ann/identity.json", &secret, &none);
    let invite = format!("--home ann --timeout 1 grant --room {ROOM} --to doctor/identity.pub --read all");
    each(&invite, "doctor/identity.pub", &any, &none);

    fs::create_dir(world.path("ann/rooms")).unwrap();
    let (memory, show) = (format!("ann/rooms/{ROOM}.json"), format!("--home ann --timeout 1 room show --room {ROOM}"));
    let zeros = "00".repeat(32);
    let text = format!("{{\"origin\":\"x\",\"size\":1,\"root\":\"{zeros}\",\"entries\":1,\"last_leaf\":\"{zeros}\"}}");
    fs::write(world.path(&memory), text).unwrap();
    // What was never seen is no fault: then the node is asked, and none is there.
    let remembered: Vec<Spoilt> = any.into_iter().filter(|way| *way != Spoilt::Missing).collect();
    each(&show, &memory, &remembered, &none);
}

#[test]
fn no_command_line_panics_or_commands_the_terminal() {
    let world = World::new(&[("ann", Role::Patient)]);
    let room = |rest: &str| format!("--home ann --timeout 1 {rest}").replace("ROOM", ROOM);
    let lines = [
        "value".to_owned(),
        "--home value rooms".to_owned(),
        room("--passphrase-file value identity passphrase"),
        room("identity new --role value"),
        room("room show --room value"),
        room("grant --room ROOM --to value --read all"),
        room("grant --room ROOM --to x --read value"),
        room("grant --room ROOM --to x --read all --from value"),
        room("grant --room ROOM --to value --read all --name value --purpose value"),
        room("revoke --room ROOM --grant value"),
        room("revoke --room ROOM --subject value"),
        room("read --room ROOM --vital value"),
        room("read --room ROOM --from value --until value"),
        room("read --room ROOM --purpose value"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    spoil::command_lines(PROGRAM, &world.path(""), &lines, &[1, 2]);
}

#[test]
fn a_log_that_cannot_be_written_changes_no_exit_code() {
    let world = World::new(&[("ann", Role::Patient)]);
    let mut command = std::process::Command::new(PROGRAM);
    command.current_dir(world.path("")).args(["--home", "ann", "--timeout", "1", "rooms"]).env("EHE_LOG", "trace");
    let code = |command: &mut std::process::Command| command.status().unwrap().code();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let readable = code(command.stderr(std::process::Stdio::null()));
    assert_eq!(code(command.stderr(full())), readable);
    let (_, to_nobody) = std::io::pipe().unwrap();
    assert_eq!(code(command.stderr(to_nobody)), readable);
}

#[test]
fn it_leaves_no_core_file() {
    let dir = tempfile::tempdir().unwrap();
    let line = "--home ann --passphrase-file /dev/stdin identity new --role patient";
    assert_eq!(spoil::core_limit_while_asking(PROGRAM, line, dir.path())[..2], ["0", "0"]);
}
