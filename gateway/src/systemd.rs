//! What the service manager is told (sd_notify(3)), by a thread of its own: a manager that does not read its socket must not stop
//! a gateway.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sd_notify::NotifyState;

/// Words that wait for a manager; further ones are dropped, since newer ones say the same and more.
const WAITING_MAX: usize = 8;

/// Something to tell.
#[derive(Debug)]
pub enum Word {
    /// All parts run.
    Ready,
    /// The gateway ends.
    Stopping,
    /// It lives.
    Alive,
    /// How it is, in a line.
    Status(String),
}

/// Tells the service manager, where there is one. Never waits; cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    words: SyncSender<Word>,
}

impl Manager {
    /// Starts the thread. It ends with the last clone, or with the process.
    pub fn start() -> std::io::Result<Self> {
        let (words, waiting) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("systemd".into()).spawn(move || speak(&waiting, say))?;
        Ok(Self { words })
    }

    /// Tells it, or drops the word if too many wait.
    pub fn tell(&self, word: Word) {
        if self.words.try_send(word).is_err() {
            tracing::debug!("the service manager does not listen");
        }
    }
}

fn speak(waiting: &Receiver<Word>, say: impl Fn(&Word)) {
    while let Ok(word) = waiting.recv() {
        say(&word);
    }
}

fn say(word: &Word) {
    let state = match word {
        Word::Ready => NotifyState::Ready,
        Word::Stopping => NotifyState::Stopping,
        Word::Alive => NotifyState::Watchdog,
        Word::Status(line) => NotifyState::Status(line),
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_listen_stops_nobody() {
        let (words, waiting) = sync_channel(WAITING_MAX);
        let manager = Manager { words };
        // Nobody takes a word: as behind a full socket.
        for _ in 0..100 {
            manager.tell(Word::Status("1 reading".into()));
        }
        assert_eq!(waiting.try_iter().count(), WAITING_MAX);
        manager.tell(Word::Stopping);
        assert!(matches!(waiting.try_recv(), Ok(Word::Stopping)), "and is told again when it listens");
    }

    #[test]
    fn what_is_told_is_said_in_order() {
        let (words, waiting) = sync_channel(WAITING_MAX);
        let manager = Manager { words };
        manager.tell(Word::Ready);
        manager.tell(Word::Alive);
        drop(manager);
        let said = std::cell::RefCell::new(Vec::new());
        speak(&waiting, |word| said.borrow_mut().push(format!("{word:?}")));
        assert_eq!(said.into_inner(), ["Ready", "Alive"]);
    }
}
