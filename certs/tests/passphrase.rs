//! Keys that people hold, protected by a passphrase: the built program, asked on a terminal and by files.

// clippy.toml exempts test functions; their helpers in a test file are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use certs::passphrase::Source;
use certs::{Credentials, FileError, identity_file};

const WORDS: &str = "four words of mine";
/// The least work that the program does for a passphrase.
const CHEAP: &str = "--work-factor 14";

struct Desk(tempfile::TempDir);

impl Desk {
    /// An empty desk with two passphrases in files.
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.secret("words", WORDS);
        desk.secret("other", "other words of mine\n");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ehe-certs"));
        // A session of its own: there is no terminal to ask, wherever the tests run.
        let program = command.get_program().to_owned();
        command = Command::new("setsid");
        command.arg("--wait").arg(program).args(line.split(' ')).current_dir(self.0.path()).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs on a terminal of its own, where these lines are typed; the exit code and what stood on the terminal.
    fn typed(&self, line: &str, answers: &[&str]) -> (bool, String) {
        let program = env!("CARGO_BIN_EXE_ehe-certs");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{program} {line}"), "/dev/null"]).current_dir(self.0.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (mut shown, mut answers) = (Vec::new(), answers.iter());
        let mut byte = [0];
        while screen.read(&mut byte).unwrap() == 1 {
            shown.push(byte[0]);
            // Typed when it is asked for, as a person does.
            if shown.ends_with(b": ") && (shown.ends_with(b"again: ") || shown.ends_with(b".json: ")) {
                keyboard.write_all(format!("{}\n", answers.next().unwrap_or(&"")).as_bytes()).unwrap();
            }
        }
        (child.wait().unwrap().success(), String::from_utf8(shown).unwrap())
    }

    /// Whether this file's passphrase opens the identity.
    fn opens(&self, identity: &str, words: &str) -> Result<(), FileError> {
        identity_file::open(&self.path(identity), &Source::File(self.path(words))).map(|_| ())
    }
}

#[test]
fn an_alliance_whose_people_have_passphrases_works_from_files_alone() {
    let desk = Desk::new();
    desk.ok(&format!("init --name Alliance --out alliance --passphrase-file words {CHEAP}"));
    let member = desk.ok(&format!("member new --name A --out a --passphrase-file words {CHEAP}"));
    let second = desk.ok(&format!("member new --name B --out b --passphrase-file other {CHEAP}"));
    let node = desk.ok("identity new --role node --dns node1.example --out node1").replace("\"\"", "\"A\"");
    fs::write(desk.path("alliance.toml"), format!("alliance = \"Two\"\n{member}{second}{node}")).unwrap();
    let sign = "charter new --from alliance.toml --sign a/identity.json --sign b/identity.json --out alliance/charter";
    // One passphrase for both is not the right one for the second; one file for each is.
    assert!(
        desk.fails(&format!("{sign} --passphrase-file words")).contains("b/identity.json: the passphrase does not")
    );
    assert!(
        desk.fails(&format!("{sign}{}", " --passphrase-file words".repeat(3))).contains("3 passphrase files for 2")
    );
    assert!(desk.ok(&format!("{sign} --passphrase-file words --passphrase-file other")).contains("valid; alliance"));
    desk.ok("issue node1/request.json --role node --into node1 --passphrase-file words");
    Credentials::load(&desk.path("node1")).unwrap();

    desk.ok(&format!("identity new --role patient --out ann --passphrase-file words {CHEAP}"));
    assert!(desk.fails("issue ann/request.json --role patient --into ann --passphrase-file other").contains("ca.key"));
    desk.ok("issue ann/request.json --role patient --into ann --passphrase-file words");
    desk.ok("identity renew --role patient --out ann --passphrase-file words");
    assert!(desk.ok("revoke --certificate ann/channel.crt --passphrase-file words").contains("list 1"));

    // Nobody is asked where nobody is.
    let unattended = Credentials::load(&desk.path("ann")).unwrap_err().to_string();
    assert!(unattended.contains("start unattended") && unattended.contains("ehe-certs passphrase"), "{unattended}");
    assert!(desk.fails("revoke --refresh").contains("no terminal"));
    let ann = Credentials::open(&desk.path("ann"), &Source::File(desk.path("words"))).unwrap();
    // The passphrase was needed once: reading the files again while a program runs takes none.
    assert!(ann.reload().unwrap().is_none());

    for file in ["alliance/ca.key", "a/identity.json", "ann/identity.json"] {
        let text = fs::read_to_string(desk.path(file)).unwrap();
        assert!(text.contains("BEGIN AGE") && !text.contains("PRIVATE KEY") && !text.contains("seed"), "{text}");
        assert_eq!(fs::metadata(desk.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
        let shown: serde_json::Value = serde_json::from_str(&desk.ok(&format!("show {file}"))).unwrap();
        assert_eq!(shown["passphrase"], true);
    }
}

#[test]
fn a_passphrase_is_changed_given_and_taken_off_and_the_keys_stay_the_same() {
    let desk = Desk::new();
    desk.ok("identity new --role patient --out ann --no-passphrase");
    desk.ok("init --name Alliance --out alliance --no-passphrase");
    let author = || desk.ok("show ann/identity.json").lines().find(|l| l.contains("author")).unwrap().to_owned();
    let (before, certificate) = (author(), fs::read(desk.path("alliance/ca.crt")).unwrap());
    let before_key = fs::read(desk.path("alliance/ca.key")).unwrap();
    for what in ["ann/identity.json", "--authority alliance"] {
        let nobody = desk.fails(&format!("passphrase {what}"));
        assert!(nobody.contains("with --new-passphrase-file, or say --no-passphrase\n"), "{nobody}");
        desk.ok(&format!("passphrase {what} --new-passphrase-file words {CHEAP}"));
        assert!(
            desk.fails(&format!("passphrase {what} --passphrase-file other --no-passphrase"))
                .matches("does not open")
                .count()
                == 1
        );
        desk.ok(&format!("passphrase {what} --passphrase-file words --new-passphrase-file other {CHEAP}"));
        assert!(
            desk.fails(&format!("passphrase {what} --passphrase-file words --no-passphrase")).contains("does not open")
        );
    }
    desk.opens("ann/identity.json", "other").unwrap();
    assert_eq!(author(), before);
    for what in ["ann/identity.json", "--authority alliance"] {
        desk.ok(&format!("passphrase {what} --passphrase-file other --no-passphrase"));
    }
    assert_eq!(author(), before);
    assert_eq!(fs::read(desk.path("alliance/ca.key")).unwrap(), before_key);
    assert_eq!(fs::read(desk.path("alliance/ca.crt")).unwrap(), certificate);
    for file in ["alliance/ca.key", "ann/identity.json"] {
        assert_eq!(fs::metadata(desk.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Nothing of the way is left lying about.
    assert!(
        fs::read_dir(desk.path("ann")).unwrap().all(|f| !f.unwrap().file_name().to_str().unwrap().ends_with(".new"))
    );
}

#[test]
fn on_a_terminal_a_new_passphrase_is_asked_twice_an_old_one_once_and_none_is_shown() {
    let desk = Desk::new();
    let new = format!("identity new --role patient --out ann {CHEAP}");
    let (done, shown) = desk.typed(&new, &[WORDS, "something else"]);
    assert!(!done && shown.contains("differ") && !desk.path("ann").exists(), "{shown}");
    let (done, shown) = desk.typed(&new, &["short", "short"]);
    assert!(!done && shown.contains("at least 8 characters") && !desk.path("ann").exists(), "{shown}");
    let (done, shown) = desk.typed(&new, &["half a passphr\u{3}"]);
    assert!(!done && shown.contains("was not read") && !desk.path("ann").exists(), "{shown}");
    let (done, shown) = desk.typed(&new, &[WORDS, WORDS]);
    assert!(done && shown.contains("New passphrase of ann/identity.json: "), "{shown}");
    assert!(!shown.contains("four words"), "{shown}");
    desk.opens("ann/identity.json", "words").unwrap();
    let (done, shown) = desk.typed("identity renew --role patient --out ann", &[WORDS]);
    assert!(done && shown.contains("Passphrase of ann/identity.json: ") && !shown.contains("again"), "{shown}");
    let (done, shown) = desk.typed("identity renew --role patient --out ann", &["not these words"]);
    assert!(!done && shown.contains("the passphrase does not open it"), "{shown}");
    // Who would overwrite is told so before anything is typed.
    let (_, shown) = desk.typed(&new, &[]);
    assert!(shown.contains("never overwritten") && !shown.contains("assphrase of"), "{shown}");
}

#[test]
fn a_passphrase_comes_from_a_descriptor_and_never_from_a_file_that_others_may_read() {
    let desk = Desk::new();
    let line = |file: &str| format!("identity new --role clinician --out dr --passphrase-file {file} {CHEAP}");
    fs::set_permissions(desk.path("words"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(desk.fails(&line("words")).contains("mode 644"));
    for (content, expected) in
        [("", "one line"), ("\n", "one line"), ("two\nlines of it", "one line"), ("short", "at least 8")]
    {
        desk.secret("bad", content);
        assert!(desk.fails(&line("bad")).contains(expected), "{content:?}");
    }
    desk.secret("bad", &"x".repeat(2000));
    assert!(desk.fails(&line("bad")).contains("bad has more than"));
    assert!(desk.fails(&line("missing")).contains("missing"));
    assert!(!desk.path("dr").exists());
    let program = env!("CARGO_BIN_EXE_ehe-certs");
    let piped = format!("printf 'four words of mine\\n' | {program} {} 3<&0", line("/dev/fd/3"));
    assert!(Command::new("sh").args(["-c", &piped]).current_dir(desk.0.path()).status().unwrap().success());
    desk.secret("words", WORDS);
    desk.opens("dr/identity.json", "words").unwrap();
}

#[test]
fn what_starts_unattended_gets_no_passphrase() {
    let desk = Desk::new();
    for role in ["node", "gateway"] {
        assert!(
            desk.fails(&format!("identity new --role {role} --out x --passphrase-file words")).contains("unattended")
        );
        desk.ok(&format!("identity new --role {role} --out {role}"));
        identity_file::load(&desk.path(role).join("identity.json")).unwrap();
    }
    assert!(desk.fails("identity new --role patient --out ann").contains("--no-passphrase"));
}

#[test]
fn a_protected_identity_that_is_torn_altered_or_of_another_says_what_to_do() {
    let desk = Desk::new();
    for who in ["ann", "bob"] {
        desk.ok(&format!("identity new --role patient --out {who} --passphrase-file words {CHEAP}"));
    }
    let path = desk.path("ann/identity.json");
    let good = fs::read_to_string(&path).unwrap();
    let other: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(desk.path("bob/identity.json")).unwrap()).unwrap();
    let mut mixed: serde_json::Value = serde_json::from_str(&good).unwrap();
    mixed["sealed"] = other["sealed"].clone();
    for (text, expected) in [
        (good.replace("\"version\": 1", "\"version\": 2"), "newer program"),
        (good.replace("age-scrypt", "age-tpm"), "newer program"),
        (good.replace("BEGIN AGE", "BEGIN PGP"), "restore it"),
        (good.replace("sealed", "scaled"), "damaged identity file"),
        (mixed.to_string(), "not this identity"),
        (good.replace('\n', " \n").repeat(2), "not an identity file"),
    ] {
        fs::write(&path, text).unwrap();
        let error = desk.opens("ann/identity.json", "words").unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("ann/identity.json"), "{error}");
    }
    for end in 0..good.trim_end().len() {
        fs::write(&path, &good[..end]).unwrap();
        assert!(desk.opens("ann/identity.json", "words").is_err(), "{end}");
    }
}
