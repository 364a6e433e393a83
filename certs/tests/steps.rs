//! The built program, in the steps that its help names.

// clippy.toml exempts test functions; their helpers in a test file are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use certs::{Credentials, Role};

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split(' ').collect();
        Command::new(env!("CARGO_BIN_EXE_ehe-certs")).args(words).current_dir(self.0.path()).output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit status and text of a command that has to fail.
    fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !text.is_empty(), "{line}");
        (output.status.code().unwrap(), text)
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// Authority, member, node and charter.
    fn founded() -> Self {
        let desk = Self::new();
        desk.ok("init --name Alliance --out alliance --no-passphrase");
        let member = desk.ok("member new --name St.Anna --out st-anna --no-passphrase");
        let node = desk.ok("identity new --role node --dns node1.example --ip 127.0.0.1 --out node1");
        let node = node.replace("member = \"\"", "member = \"St.Anna\"");
        fs::write(desk.path("alliance.toml"), format!("alliance = \"Two hospitals\"\n{member}{node}")).unwrap();
        let made = desk.ok("charter new --from alliance.toml --sign st-anna/identity.json --out alliance/charter");
        assert!(made.contains("valid; alliance "), "{made}");
        desk
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_certificate_is_not_put_beside_somebody_elses_key() {
    let desk = Desk::founded();
    for who in ["ann", "pat"] {
        desk.ok(&format!("identity new --role patient --out {who} --no-passphrase"));
        desk.ok(&format!("issue {who}/request.json --role patient --authority alliance --into {who}"));
    }
    let before = fs::read(desk.path("ann/channel.crt")).unwrap();
    let (_, text) = desk.fails("issue pat/request.json --role patient --authority alliance --into ann");
    assert!(text.contains("ann/identity.pub") && text.contains("--out"), "{text}");
    assert_eq!(fs::read(desk.path("ann/channel.crt")).unwrap(), before);
}

#[test]
fn the_documented_steps_make_an_alliance_in_which_everybody_is_somebody() {
    let desk = Desk::founded();
    desk.ok("issue node1/request.json --role node --authority alliance --into node1");
    for role in ["gateway", "patient", "clinician"] {
        desk.ok(&format!("identity new --role {role} --out {role} --no-passphrase"));
        desk.ok(&format!("issue {role}/request.json --role {role} --authority alliance --into {role}"));
    }
    for (dir, role) in
        [("node1", Role::Node), ("gateway", Role::Gateway), ("patient", Role::Patient), ("clinician", Role::Clinician)]
    {
        let credentials = Credentials::load(&desk.path(dir)).unwrap();
        assert_eq!(credentials.peer().role(), role);
        for secret in ["identity.json", "channel.key"] {
            assert_eq!(mode(&desk.path(dir).join(secret)), 0o600, "{dir}/{secret}");
        }
    }
    assert_eq!(mode(&desk.path("alliance/ca.key")), 0o600);
    assert_eq!(mode(&desk.path("st-anna/identity.json")), 0o600);
    let node = Credentials::load(&desk.path("node1")).unwrap();
    let named = node.charter().node(node.peer().node().unwrap()).unwrap();
    assert_eq!(named.name, "node1.example");
    assert_eq!(named.sign, node.identity().public().sign);
}

#[test]
fn a_charter_of_several_members_becomes_valid_with_their_majority() {
    let desk = Desk::new();
    desk.ok("init --name Alliance --out alliance --no-passphrase");
    let mut text = "alliance = \"Three\"\n".to_owned();
    for name in ["a", "b", "c"] {
        text += &desk.ok(&format!("member new --name {name} --out {name} --no-passphrase"));
    }
    let node = desk.ok("identity new --role node --dns node.example --out node");
    text += &node.replace("member = \"\"", "member = \"a\"");
    fs::write(desk.path("alliance.toml"), &text).unwrap();
    desk.ok("member new --name stranger --out stranger --no-passphrase");

    assert!(desk.ok("charter new --from alliance.toml --sign a/identity.json --out charter").contains("1 of the 2 "));
    assert_eq!(desk.json("charter show charter")["valid"], false);
    assert_eq!(desk.fails("install --charter charter --into node").0, 3);
    assert!(desk.fails("charter sign charter --with stranger/identity.json").1.contains("no member"));
    assert!(desk.ok("charter sign charter --with b/identity.json").contains("valid; alliance"));
    let shown = desk.json("charter show charter");
    assert_eq!((&shown["valid"], &shown["charter"]["version"]), (&true.into(), &1.into()));
    let first = desk.ok("install --charter charter --into node");
    assert_eq!(first, "node: charter 1\n");
    assert_eq!(desk.ok("install --charter charter --into node"), "node: charter 1, as before\n");

    // The next version.
    assert!(desk.fails("charter new --from alliance.toml --out charter").1.contains("is there already"));
    let next =
        "charter new --from alliance.toml --after charter --out charter --sign b/identity.json --sign c/identity.json";
    assert!(desk.ok(next).contains("valid"));
    let next = desk.json("show charter");
    assert_eq!((&next["valid"], &next["charter"]["version"]), (&true.into(), &2.into()));
    assert_eq!(next["alliance_id"], shown["alliance_id"]);
}

/// Three members with a node each, charter 1 by two of them in `charter`, and the description in `alliance.toml`.
fn three_hospitals() -> Desk {
    let desk = Desk::new();
    let mut text = desk.ok("charter example");
    text.truncate(text.find("[placement]").unwrap());
    for name in ["st-anna", "st-barbara", "st-clara"] {
        desk.ok(&format!("member new --name {name} --out {name} --no-passphrase"));
    }
    for n in 1..=4 {
        desk.ok(&format!("identity new --role node --dns node{n}.example --out node{n}"));
    }
    fs::write(desk.path("four.toml"), &text).unwrap();
    text.truncate(text.rfind("[[node]]").unwrap());
    fs::write(desk.path("alliance.toml"), text).unwrap();
    desk.ok(
        "charter new --from alliance.toml --out charter --sign st-anna/identity.json --sign st-clara/identity.json",
    );
    desk
}

#[test]
fn who_signs_a_later_charter_is_told_what_it_changes_and_a_node_that_is_new_holds_nothing() {
    let desk = three_hospitals();
    let new = "charter new --after charter --out next --sign st-anna/identity.json";
    let made = desk.ok(&format!("{new} --from four.toml"));
    let changes =
        ["charter 2 of \"Three hospitals\" changes charter 1:", "adds node node4.example (", "no shard moves"];
    assert!(changes.iter().all(|part| made.contains(part)), "{made}");
    let shown = desk.json("charter show next");
    assert!(shown["changes"].to_string().contains("node4.example"), "{shown}");
    assert_eq!(shown["charter"]["placement"], desk.json("charter show charter")["charter"]["placement"]);
    assert!(desk.json("charter show charter")["changes"].is_null());
    fs::remove_file(desk.path("next")).unwrap();

    let four = fs::read_to_string(desk.path("four.toml")).unwrap();
    let placed = format!("{four}[placement]\neverywhere = ['node1.example', 'node2.example', 'node4.example']\n");
    fs::write(desk.path("moved.toml"), placed).unwrap();
    let moves = "moves shards 0–15: node1.example, node2.example, node3.example -> node1.example, node2.example, node4.example; \
                 comes to [node4.example], leaves [node3.example]";
    for line in
        [&format!("{new} --from moved.toml"), "charter sign next --with st-barbara/identity.json", "charter show next"]
    {
        assert!(desk.ok(line).contains(moves), "{line}");
    }
    assert_eq!(desk.json("charter show next")["valid"], true);
}

#[test]
fn a_signature_that_would_spoil_a_charter_is_not_written_to_it() {
    let desk = three_hospitals();
    desk.ok("member new --name stranger --out stranger --no-passphrase");
    desk.ok("charter new --from four.toml --after charter --out next --sign st-anna/identity.json");
    let before = fs::read(desk.path("next")).unwrap();
    let (status, text) = desk.fails("charter sign next --with stranger/identity.json");
    assert!(status == 3 && text.contains("no member") && text.contains("nothing was written"), "{text}");
    assert!(before == fs::read(desk.path("next")).unwrap());
    assert!(desk.ok("charter sign next --with st-clara/identity.json").contains("valid; alliance"));
}

#[test]
fn what_is_no_charter_is_refused_with_what_to_do() {
    let desk = three_hospitals();
    let torn = fs::read(desk.path("charter")).unwrap();
    fs::write(desk.path("torn"), &torn[..torn.len() / 2]).unwrap();
    for file in ["torn", "alliance.toml"] {
        for line in [
            format!("charter show {file}"),
            format!("charter sign {file} --with st-anna/identity.json"),
            format!("charter new --from four.toml --after {file} --out x"),
        ] {
            let (status, text) = desk.fails(&line);
            assert!(status == 3 && text.contains(file) && text.contains("get the charter again"), "{text}");
        }
    }
    let (_, text) = desk.fails("charter new --from nothing.toml --out x");
    assert!(text.contains("ehe-certs charter example"), "{text}");
}

#[test]
fn nothing_secret_is_overwritten() {
    let desk = Desk::founded();
    let files = ["alliance/ca.key", "st-anna/identity.json", "node1/identity.json", "node1/channel.key"];
    let before = files.map(|file| fs::read(desk.path(file)).unwrap());
    for line in [
        "init --name Alliance --out alliance --no-passphrase",
        "member new --name St.Anna --out st-anna --no-passphrase",
        "identity new --role node --out node1",
    ] {
        let (status, text) = desk.fails(line);
        assert!(status == 1 && text.contains("never overwritten"), "{text}");
    }
    assert!(before == files.map(|file| fs::read(desk.path(file)).unwrap()));
}

#[test]
fn a_request_for_another_role_or_an_altered_one_is_refused_with_its_own_exit_status() {
    let desk = Desk::founded();
    let (status, text) = desk.fails("issue node1/request.json --role gateway --out x.crt");
    assert!(status == 3 && text.contains("asks for the role node"), "{text}");
    let request = fs::read_to_string(desk.path("node1/request.json")).unwrap();
    fs::write(desk.path("bad.json"), request.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert_eq!(desk.fails("issue bad.json --role node --out x.crt").0, 3);
    assert_eq!(desk.fails("issue missing.json --role node --out x.crt").0, 1);
    assert_eq!(desk.fails("issue node1/request.json --role node").0, 2);
    assert_eq!(desk.fails("issue node1/request.json --role nurse --out x.crt").0, 2);
    assert!(!desk.path("x.crt").exists());
}

#[test]
fn a_certificate_can_be_revoked_and_the_list_is_installed() {
    let desk = Desk::founded();
    desk.ok("issue node1/request.json --role node --into node1");
    assert!(desk.ok("revoke --certificate node1/channel.crt").contains("list 1 with 1 "));
    assert!(desk.ok("revoke --refresh").contains("list 2 with 1 "));
    let peer = Credentials::load(&desk.path("node1")).unwrap().peer();
    assert!(desk.ok(&format!("revoke --peer {peer}")).contains("list 3 with 1 "));
    assert_eq!(desk.fails("revoke --serial 00ff").0, 1);
    let installed = desk.ok("install --into node1");
    for part in
        ["node1: charter 1, as before\n", "crl.pem: list 3, certificates that it revokes: 1;", "without a restart"]
    {
        assert!(installed.contains(part), "{installed}");
    }
    assert!(desk.path("node1/crl.pem").exists());
    Credentials::load(&desk.path("node1")).unwrap();
    assert!(desk.ok("install --into node1").contains("crl.pem: list 3, as before\n"));

    // An older list, of a copy of the authority's directory, would let in again whom the newer one revokes.
    let newest = fs::read(desk.path("alliance/crl.pem")).unwrap();
    desk.ok("revoke --refresh");
    desk.ok("install --into node1");
    fs::write(desk.path("alliance/crl.pem"), newest).unwrap();
    assert!(desk.ok("install --into node1").contains("crl.pem: list 4 stays"));
    assert_eq!(Credentials::load(&desk.path("node1")).unwrap().revocations().unwrap().number(), "4");
}

#[test]
fn a_node_that_is_added_is_told_which_charter_it_got_and_whether_that_names_it() {
    let desk = three_hospitals();
    desk.ok("init --name Alliance --out alliance --no-passphrase");
    fs::copy(desk.path("charter"), desk.path("alliance/charter")).unwrap();
    let issued = desk.ok("issue node4/request.json --role node --into node4");
    for part in ["node4: charter 1\n", "is not in charter 1", "ehe-certs install --charter FILE --into node4"] {
        assert!(issued.contains(part), "{issued}");
    }
    assert!(!desk.ok("issue node1/request.json --role node --into node1").contains("is not in"));

    desk.ok("charter new --from four.toml --after charter --out next --sign st-anna/identity.json");
    assert_eq!(
        desk.fails("issue node4/request.json --role node --charter next --into node4").0,
        3,
        "not signed by most"
    );
    assert_eq!(
        desk.fails("issue node4/request.json --role node --charter next --out x.crt").0,
        2,
        "it would go nowhere"
    );
    desk.ok("charter sign next --with st-barbara/identity.json");
    let issued = desk.ok("issue node4/request.json --role node --charter next --into node4");
    assert!(issued.contains("node4: charter 2, where charter 1 was") && !issued.contains("is not in"), "{issued}");

    // The authority's directory may have an older charter than what a directory got since: a renewal does not put that back.
    let renewed = desk.ok("issue node4/request.json --role node --into node4");
    assert!(renewed.contains("node4: charter 2 stays; alliance/charter has no newer one than 1\n"), "{renewed}");
    assert_eq!(Credentials::load(&desk.path("node4")).unwrap().charter().version(), 2);

    // Of two charters 2 that members signed, neither takes the other's place.
    let other = "charter new --from alliance.toml --after charter --out other --sign st-anna/identity.json --sign st-clara/identity.json";
    desk.ok(other);
    let (status, text) = desk.fails("install --charter other --into node4");
    assert!(status == 3 && text.contains("another charter 2"), "{text}");
}

#[test]
fn the_public_half_of_an_identity_signs_nothing_and_raises_no_alarm() {
    let desk = three_hospitals();
    let (status, text) = desk.fails("charter sign charter --with st-barbara/identity.pub");
    assert!(status == 1 && text.contains("public identity") && !text.contains("Renew"), "{text}");
}

#[test]
fn show_recognises_every_file_and_shows_no_secret() {
    let desk = Desk::founded();
    desk.ok("issue node1/request.json --role node --into node1");
    let secret = fs::read_to_string(desk.path("node1/identity.json")).unwrap();
    let secret: serde_json::Value = serde_json::from_str(&secret).unwrap();
    for (file, kind) in [
        ("node1/identity.json", "identity"),
        ("node1/identity.pub", "public identity"),
        ("node1/request.json", "enrolment request"),
        ("node1/channel.key", "private key"),
        ("node1/channel.crt", "certificate"),
        ("alliance/ca.crt", "authority"),
        ("node1/charter", "charter"),
    ] {
        let text = desk.ok(&format!("show {file}"));
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(shown["type"], kind);
        for seed in ["sign_seed", "kem_seed"] {
            assert!(!text.contains(secret[seed].as_str().unwrap()), "{file}");
        }
    }
    assert_eq!(desk.fails("show alliance.toml").0, 1);
}

#[test]
fn credentials_of_one_alliance_are_never_replaced_by_those_of_another() {
    let desk = Desk::founded();
    desk.ok("issue node1/request.json --role node --into node1");
    let files = ["ca.crt", "channel.crt", "charter"].map(|name| desk.path("node1").join(name));
    let before = files.clone().map(|file| fs::read(file).unwrap());
    desk.ok("init --name Other --out other --no-passphrase");
    for line in [
        "issue node1/request.json --role node --authority other --into node1",
        "install --authority other --charter alliance/charter --into node1",
    ] {
        let (status, text) = desk.fails(line);
        assert!(status == 1 && text.contains("CN=Alliance") && text.contains("CN=Other"), "{text}");
        assert!(text.contains("another directory"), "{text}");
    }
    assert!(before == files.clone().map(|file| fs::read(file).unwrap()));
    assert!(!desk.path("other/issued.jsonl").exists(), "nothing was issued");

    // Without its ca.crt the certificate still tells; and of one authority's charters the installed one stays.
    fs::remove_file(&files[0]).unwrap();
    let (_, text) = desk.fails("issue node1/request.json --role node --authority other --into node1");
    assert!(text.contains("channel.crt was issued by"), "{text}");
    fs::remove_file(desk.path("alliance/charter")).unwrap();
    fs::rename(desk.path("st-anna"), desk.path("old")).unwrap();
    desk.ok("member new --name St.Anna --out st-anna --no-passphrase");
    desk.ok("charter new --from alliance.toml --sign st-anna/identity.json --out alliance/charter");
    assert!(desk.fails("install --into node1").1.contains("is of alliance"));
    fs::remove_file(&files[2]).unwrap();
    desk.ok("install --into node1");
}

#[test]
fn who_reads_only_the_beginning_of_what_is_shown_sees_no_complaint() {
    let desk = Desk::founded();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let shown = Command::new(env!("CARGO_BIN_EXE_ehe-certs"))
        .args(["show", "alliance/charter"])
        .current_dir(desk.0.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert!(shown.status.success() && shown.stderr.is_empty(), "{shown:?}");
}

#[test]
fn a_certificate_is_renewed_with_the_same_keys() {
    let desk = Desk::founded();
    desk.ok("issue node1/request.json --role node --into node1");
    let before = Credentials::load(&desk.path("node1")).unwrap();
    desk.ok("identity renew --role node --dns node1.example --out node1");
    desk.ok("issue node1/request.json --role node --days 30 --into node1");
    let after = Credentials::load(&desk.path("node1")).unwrap();
    assert_eq!(before.certificate().public_key, after.certificate().public_key);
    assert_ne!(before.certificate().serial, after.certificate().serial);
}
