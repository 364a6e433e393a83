//! The terminal view: what arrives, by whom it is read, what is refused.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Lines of the log that stay on the screen.
const LOG_LINES: usize = 14;

/// A wearable's row.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Device id.
    pub device: String,
    /// What it last sent.
    pub last: String,
    /// Readings published.
    pub published: usize,
    /// Readings that a reader has seen.
    pub read: usize,
}

#[derive(Debug)]
struct State {
    rows: Vec<Row>,
    parts: Vec<(String, String)>,
    log: VecDeque<String>,
}

/// A screen that is drawn anew where there is a terminal, and a log of lines elsewhere.
#[derive(Debug, Clone)]
pub struct View {
    state: Arc<Mutex<State>>,
    start: Instant,
    screen: bool,
}

impl View {
    /// A view with a row for each device. `screen`: draw, if there is a terminal to draw on.
    pub fn new(devices: impl IntoIterator<Item = String>, screen: bool) -> Self {
        let rows = devices.into_iter().map(|device| Row { device, ..Row::default() }).collect();
        let state = State { rows, parts: Vec::new(), log: VecDeque::new() };
        Self {
            state: Arc::new(Mutex::new(state)),
            start: Instant::now(),
            screen: screen && std::io::stdout().is_terminal(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes a device's row.
    pub fn row(&self, device: &str, change: impl FnOnce(&mut Row)) {
        self.with(|state| {
            if let Some(row) = state.rows.iter_mut().find(|row| row.device == device) {
                change(row);
            }
        });
    }

    /// Says how a part of the system is.
    pub fn part(&self, name: &str, how: impl Into<String>) {
        let how = how.into();
        self.with(|state| match state.parts.iter_mut().find(|(part, _)| part == name) {
            Some(part) => part.1 = how,
            None => state.parts.push((name.into(), how)),
        });
    }

    /// Tells what happened.
    pub fn say(&self, what: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", self.start.elapsed().as_secs_f64(), what.as_ref());
        if !self.screen {
            print(&format!("{line}\n"));
            return;
        }
        self.with(|state| {
            state.log.push_back(line);
            while state.log.len() > LOG_LINES {
                state.log.pop_front();
            }
        });
        self.draw();
    }

    /// Draws the screen.
    pub fn draw(&self) {
        if self.screen {
            let screen = self.with(|state| render(state));
            // Home, text, clear what is below: no flicker.
            print(&format!("\x1b[H{}\x1b[J", screen.replace('\n', "\x1b[K\n")));
        }
    }
}

fn render(state: &State) -> String {
    let mut out =
        String::from("  EHE: readings from home, sealed for whom the patient invites          Ctrl-C ends\n\n");
    for (part, how) in &state.parts {
        let _ = writeln!(out, "  {part:<12}{how}");
    }
    let _ = writeln!(out, "\n  {:<16}{:>10}{:>10}   last sent", "wearable", "published", "read");
    for row in &state.rows {
        let last: String = row.last.chars().take(60).collect();
        let _ = writeln!(out, "  {:<16}{:>10}{:>10}   {last}", row.device, row.published, row.read);
    }
    out.push('\n');
    for line in &state.log {
        let _ = writeln!(out, "  {line}");
    }
    out
}

/// Prints; whoever closed the pipe does not want to read on, and that is no fault.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
