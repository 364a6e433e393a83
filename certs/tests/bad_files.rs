//! `ehe-certs` and what it should never have been given.

// clippy.toml exempts test functions; their helpers in a test file are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each program's test uses its part of this")]
#[path = "support/spoil.rs"]
mod spoil;

use std::fs;
use std::path::Path;
use std::process::Command;

use spoil::Spoilt;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ehe-certs");
/// Ours to mend, or refused because somebody else made it so.
const FAULTS: [i32; 2] = [1, 3];

fn ok(folder: &Path, line: &str) -> String {
    let ended = spoil::run(PROGRAM, &spoil::words(line), folder);
    assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    ended.out
}

/// An alliance with passphrases, one node, one patient, a revocation list.
fn founded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    fs::write(folder.join("words"), "four words of mine").unwrap();
    assert!(Command::new("chmod").arg("600").arg(folder.join("words")).status().unwrap().success());
    let held = "--passphrase-file words --work-factor 14";
    ok(folder, &format!("init --name Alliance --out alliance {held}"));
    let member = ok(folder, &format!("member new --name A --out member {held}"));
    let node = ok(folder, "identity new --role node --dns node1.example --out node1").replace("\"\"", "\"A\"");
    fs::write(folder.join("alliance.toml"), format!("alliance = \"Two\"\n{member}{node}")).unwrap();
    let sign = "charter new --from alliance.toml --sign member/identity.json --passphrase-file words";
    ok(folder, &format!("{sign} --out alliance/charter"));
    ok(folder, "issue node1/request.json --role node --into node1 --passphrase-file words");
    ok(folder, "identity new --role patient --out ann --no-passphrase");
    ok(folder, "revoke --refresh --passphrase-file words");
    dir
}

#[test]
fn every_file_may_be_missing_torn_huge_or_no_file_and_the_message_names_it() {
    let dir = founded();
    let each = |line: &str, file: &str, ways: &[Spoilt], fine: &dyn Fn(Spoilt) -> bool| {
        spoil::each(PROGRAM, line, dir.path(), file, ways, &FAULTS, fine);
    };
    let none = |_: Spoilt| false;
    let (any, secret) = (Spoilt::ANY, Spoilt::secret());
    let issue = "issue node1/request.json --role node --out x.crt --passphrase-file words";
    each(issue, "node1/request.json", &any, &none);
    each(issue, "alliance/ca.key", &secret, &none);
    each(issue, "alliance/ca.crt", &any, &none);
    // A passphrase that is torn is another one; ca.key is what it does not open.
    let passphrase = |way: Spoilt| !matches!(way, Spoilt::Torn(_));
    each(issue, "words", &secret.iter().copied().filter(|way| passphrase(*way)).collect::<Vec<_>>(), &none);
    let new = "charter new --from alliance.toml --sign member/identity.json --out y --passphrase-file words";
    each(new, "alliance.toml", &any, &none);
    each(new, "member/identity.json", &secret, &none);
    each(new, "member/identity.pub", &any, &none);
    each(new, "node1/identity.pub", &any, &none);
    assert!(!dir.path().join("y").exists(), "nothing came of any of these");
    each("charter show alliance/charter", "alliance/charter", &any, &none);
    each("install --into node1", "alliance/charter", &any, &none);
    // Without a list there is nothing revoked yet.
    let missing = |way: Spoilt| way == Spoilt::Missing;
    each("revoke --refresh --passphrase-file words", "alliance/revoked.json", &any, &missing);
    let renew = "identity renew --role patient --out ann";
    each(renew, "ann/identity.json", &secret, &none);
    each(renew, "ann/channel.key", &secret, &missing);
    each("passphrase ann/identity.json --no-passphrase", "ann/identity.json", &secret, &none);
    for file in ["ann/identity.json", "ann/identity.pub", "ann/request.json", "node1/channel.crt", "alliance/ca.crt"] {
        each(&format!("show {file}"), file, &any, &none);
    }
}

#[test]
fn no_command_line_panics_or_commands_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    // A name is allowed to be anything that a certificate can hold; these values are not, except for what only needs escaping.
    let lines = [
        "value",
        "show value",
        "identity new --role value --out x --no-passphrase",
        "identity new --role patient --out missing/../value/x --no-passphrase --passphrase-file y",
        "issue value --role node --out x",
        "issue request.json --role node --out x --days value",
        "revoke --authority value --refresh",
        "revoke --peer value",
        "revoke --serial value",
        "charter new --from value --out x",
        "charter sign value --with value",
        "install --authority value --into value",
        "init --name x --out value --passphrase-file value",
        "passphrase value --no-passphrase",
    ];
    spoil::command_lines(PROGRAM, dir.path(), &lines, &[1, 2]);
}

#[test]
fn it_leaves_no_core_file() {
    let dir = tempfile::tempdir().unwrap();
    let line = "identity new --role patient --out ann --passphrase-file /dev/stdin";
    assert_eq!(spoil::core_limit_while_asking(PROGRAM, line, dir.path())[..2], ["0", "0"]);
}
