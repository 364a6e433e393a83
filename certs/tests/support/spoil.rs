//! Files and command lines that nobody should have to face, and what every program of ours does with them: it ends by itself, with
//! an exit code of its interface and one message that names the file; it waits for nobody, takes no memory for it, and panics
//! never. Used by the tests of all four programs.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of these takes on a busy machine, shorter than what waits for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// Address space of a program under test: enough for its threads and a passphrase, not for a file that is read whole.
const MEMORY_KIB: u64 = 3 * 1024 * 1024;
/// Length of a file that is too large. It takes no space on the disk.
const LARGE_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    /// None: a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end, within bounds, in a folder, without a terminal.
pub fn run(program: &str, arguments: &[OsString], folder: &Path) -> Ended {
    let mut command = Command::new("setsid");
    command.args(["--wait", "sh", "-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""), program]);
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("EHE_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let collect = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = collect(Box::new(child.stdout.take().unwrap()));
    let err = collect(Box::new(child.stderr.take().unwrap()));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(5)),
            None => {
                // The program itself, not only the wrapper that waits for it.
                let _ = Command::new("pkill").args(["-KILL", "-P", &child.id().to_string()]).status();
                let _ = child.kill();
                panic!("{program} {arguments:?} still runs after {LIMIT:?}");
            }
        }
    };
    Ended { code: status.code(), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Words of a command line.
pub fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    /// Gone.
    Missing,
    /// Nothing in it.
    Empty,
    /// Its first quarters.
    Torn(usize),
    /// Bytes that are no text.
    Binary,
    /// Text that is nothing, with what commands a terminal.
    Rubbish,
    /// Ten gibibytes.
    Large,
    /// A directory in its place.
    Directory,
    /// A pipe that nobody writes to.
    Pipe,
    /// A link to itself.
    Loop,
    /// An endless device.
    Device,
    /// Others may read it.
    Open,
    /// Nobody may read it.
    Closed,
}

impl Spoilt {
    /// What can happen to any file.
    pub const ANY: [Self; 12] = [
        Self::Missing,
        Self::Empty,
        Self::Torn(1),
        Self::Torn(2),
        Self::Torn(3),
        Self::Binary,
        Self::Rubbish,
        Self::Large,
        Self::Directory,
        Self::Pipe,
        Self::Loop,
        Self::Device,
    ];

    /// What can happen to a file that holds a secret.
    pub fn secret() -> Vec<Self> {
        // To root, no file is closed.
        let probe = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(probe.path(), fs::Permissions::from_mode(0o000)).unwrap();
        let closed = fs::File::open(probe.path()).is_err().then_some(Self::Closed);
        Self::ANY.into_iter().chain([Self::Open]).chain(closed).collect()
    }

    /// Does it to a file; the file is to be put back by [`Kept`].
    fn apply(self, path: &Path, good: &[u8]) {
        let mode = fs::metadata(path).unwrap().permissions();
        let write = |bytes: &[u8]| {
            fs::write(path, bytes).unwrap();
            fs::set_permissions(path, mode.clone()).unwrap();
        };
        match self {
            Self::Empty => write(b""),
            Self::Torn(quarters) => write(&good[..good.len() * quarters / 4]),
            Self::Binary => write(&[0xff; 300]),
            Self::Rubbish => write("\u{1b}[2J\u{1b}]0;gotcha\u{7} \u{202e} = [".repeat(20).as_bytes()),
            Self::Large => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(LARGE_BYTES).unwrap(),
            Self::Open => fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap(),
            Self::Closed => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
            Self::Missing => fs::remove_file(path).unwrap(),
            Self::Directory | Self::Pipe | Self::Loop | Self::Device => {
                fs::remove_file(path).unwrap();
                match self {
                    Self::Directory => fs::create_dir(path).unwrap(),
                    Self::Pipe => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
                    Self::Loop => symlink(path.file_name().unwrap(), path).unwrap(),
                    _ => symlink("/dev/zero", path).unwrap(),
                }
            }
        }
    }

    /// What a message has to say.
    fn said(self) -> &'static str {
        match self {
            Self::Large => "more than",
            Self::Directory => "is a directory",
            Self::Pipe => "is a pipe",
            Self::Device => "is a device",
            Self::Loop => "symbolic link",
            Self::Open => "chmod",
            Self::Closed => "denied",
            _ => "",
        }
    }
}

/// A file that is put back as it was.
struct Kept {
    path: PathBuf,
    good: Vec<u8>,
    mode: fs::Permissions,
}

impl Kept {
    fn of(path: &Path) -> Self {
        Self { path: path.into(), good: fs::read(path).unwrap(), mode: fs::metadata(path).unwrap().permissions() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path).or_else(|_| fs::remove_file(&self.path));
        fs::write(&self.path, &self.good).unwrap();
        fs::set_permissions(&self.path, self.mode.clone()).unwrap();
    }
}

/// That a program ended as ours do, with a code of these.
pub fn ended_well(ended: &Ended, codes: &[i32], what: &str) {
    assert!(ended.code.is_some_and(|code| codes.contains(&code)), "{what}: {ended:?}");
    assert!(!ended.err.contains("panicked") && !ended.err.contains("RUST_BACKTRACE"), "{what}: {}", ended.err);
    let commands = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t') || c == '\u{202e}');
    assert!(!commands(&ended.err), "{what}: {:?}", ended.err);
    assert!(ended.err.len() < 40_000, "{what}: {} bytes of complaint", ended.err.len());
}

/// Spoils a file in each of these ways, runs the program, and asserts that it ends with one of the codes and a message that names the
/// file. `fine` says in which states the file does no harm (a missing one that may be missing, the last bytes of one).
pub fn each(
    program: &str,
    line: &str,
    folder: &Path,
    file: &str,
    ways: &[Spoilt],
    codes: &[i32],
    fine: impl Fn(Spoilt) -> bool,
) {
    let path = folder.join(file);
    for way in ways {
        let kept = Kept::of(&path);
        way.apply(&path, &kept.good);
        let ended = run(program, &words(line), folder);
        drop(kept);
        let what = format!("{file} {way:?}: {line}");
        if fine(*way) {
            ended_well(&ended, &[0], &what);
            continue;
        }
        ended_well(&ended, codes, &what);
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        assert!(ended.err.contains(name), "{what}: does not name the file: {}", ended.err);
        assert!(ended.err.contains(way.said()), "{what}: does not say {:?}: {}", way.said(), ended.err);
        // A message that only repeats the system's words leaves its reader alone.
        assert!(ended.err.trim().len() > name.len() + 20, "{what}: {}", ended.err);
    }
}

/// Command lines with what others may have put there: `value` stands where a value belongs. Each ends with one of the codes.
pub fn command_lines(program: &str, folder: &Path, lines: &[&str], codes: &[i32]) {
    let values: [(&str, Vec<u8>); 6] = [
        ("not text", b"\xff\xfe\x80".to_vec()),
        ("colours", b"\x1b[31mred\x1b]0;title\x07\x9b0m".to_vec()),
        ("turned around", "\u{202e}txt.exe".as_bytes().to_vec()),
        ("long", vec![b'x'; 100_000]),
        ("lines", b"a\nb\rc".to_vec()),
        ("nothing", Vec::new()),
    ];
    for line in lines {
        for (what, value) in &values {
            let arguments: Vec<OsString> = line
                .split(' ')
                .map(|word| if word == "value" { OsString::from_vec(value.clone()) } else { word.into() })
                .collect();
            let ended = run(program, &arguments, folder);
            ended_well(&ended, codes, &format!("{line} with a value that is {what}"));
        }
    }
}

/// The soft and hard limit of a running process's core files, from the kernel.
pub fn core_limit(pid: u32) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap().to_owned();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Starts a command that asks for a passphrase in its standard input, and gives what the kernel says of its core files meanwhile.
/// It was started with no limit.
pub fn core_limit_while_asking(program: &str, line: &str, folder: &Path) -> Vec<String> {
    let script = "ulimit -c unlimited 2> /dev/null; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, program]).args(words(line)).current_dir(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let found = loop {
        let found = core_limit(child.id());
        // Both: the shell may begin with a soft limit of 0 itself.
        if found.iter().take(2).filter(|limit| *limit == "0").count() == 2 || begun.elapsed() > LIMIT {
            break found;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    found
}
