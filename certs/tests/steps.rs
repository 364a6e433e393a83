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

    assert!(desk.ok("charter new --from alliance.toml --sign a/identity.json --out charter").contains("1 of 2"));
    assert_eq!(desk.json("charter show charter")["valid"], false);
    assert_eq!(desk.fails("install --charter charter --into node").0, 3);
    assert!(desk.fails("charter sign charter --with stranger/identity.json").1.contains("no member"));
    assert!(desk.ok("charter sign charter --with b/identity.json").contains("valid; alliance"));
    let shown = desk.json("charter show charter");
    assert_eq!((&shown["valid"], &shown["charter"]["version"]), (&true.into(), &1.into()));
    let first = desk.ok("install --charter charter --into node");
    assert!(first.contains("node: charter 1\n") && first.contains("restart the node"), "{first}");
    let again = desk.ok("install --charter charter --into node");
    assert!(again.contains("as before") && !again.contains("restart"), "{again}");

    // The next version.
    assert!(desk.fails("charter new --from alliance.toml --out charter").1.contains("is there already"));
    let next =
        "charter new --from alliance.toml --after charter --out charter --sign b/identity.json --sign c/identity.json";
    assert!(desk.ok(next).contains("valid"));
    let next = desk.json("show charter");
    assert_eq!((&next["valid"], &next["charter"]["version"]), (&true.into(), &2.into()));
    assert_eq!(next["alliance_id"], shown["alliance_id"]);
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
    desk.ok("install --into node1");
    assert!(desk.path("node1/crl.pem").exists());
    Credentials::load(&desk.path("node1")).unwrap();
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
