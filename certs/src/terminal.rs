//! The terminal: what others chose (file names, values, names in a charter) on its way there, and a line that nobody sees.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Ctrl-C, as it arrives where it ends no program.
const INTERRUPT: u8 = 3;
/// Longest line of a terminal (Linux).
const LINE_MAX_BYTES: usize = 4096;

/// Most characters of one message: what somebody made to be echoed does not scroll everything else away.
const MESSAGE_MAX_CHARS: usize = 8 * 1024;

/// The text with what would command a terminal, or hide a part of the text, in its escaped form, and cut where it is longer than
/// any message. Line ends and tabs stay.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MESSAGE_MAX_CHARS));
    for (count, c) in text.chars().enumerate() {
        if count == MESSAGE_MAX_CHARS {
            out.push_str("… (cut off here)");
            break;
        }
        let commands = c.is_control() && !matches!(c, '\n' | '\t');
        // Marks that change the order in which a line is shown (Unicode, UAX #9).
        let reorders =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match commands || reorders {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// The echo of a terminal, off until this goes.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        // Ctrl-C has to end the line, not the program: the echo would stay off.
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        hidden.local_modes.insert(LocalModes::ICANON);
        hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        // What was typed ahead was seen: it is thrown away.
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Asks for one line on the program's terminal, without an echo. `None` where there is no terminal.
pub(crate) fn ask_hidden(prompt: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Ok(mut terminal) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let mut writer = terminal.try_clone()?;
    let hidden = Hidden::begin(&terminal)?;
    writer.write_all(prompt.as_bytes())?;
    let mut line = Zeroizing::new(vec![0; LINE_MAX_BYTES]);
    let read = (&*hidden.terminal).read(&mut line);
    drop(hidden);
    terminal.write_all(b"\n")?;
    line.truncate(read?);
    match line.last() {
        Some(&INTERRUPT) => Err(io::ErrorKind::Interrupted.into()),
        Some(_) => Ok(Some(line)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_commands_the_terminal_and_the_rest_stays() {
        assert_eq!(escaped("a\x1b[31mred\x07\r\u{9b}0m\u{202e}b"), "a\\u{1b}[31mred\\u{7}\\r\\u{9b}0m\\u{202e}b");
        assert_eq!(escaped("Größe\n\t36.40 °C"), "Größe\n\t36.40 °C");
        assert!(escaped(&"x".repeat(1 << 20)).len() < MESSAGE_MAX_CHARS + 40);
    }
}
