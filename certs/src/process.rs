//! A process that holds keys and readings: its memory is nobody's to look into.
//!
//! What is cleared and what is not: our own types clear keys, seeds, passphrases, decoded plaintext and key files when they go
//! (`zeroize`). Copies that libraries make are out of reach: rustls and aws-lc keep the channel's private key for as long as the
//! endpoint lives, rustls-pki-types' and rcgen's parsers copy PEM and DER, scrypt leaves its work memory to the allocator, an MQTT
//! client keeps its broker's password, and decoded readings are on their way to a screen, a file or a seal. For those it counts that
//! no core file and no other process of the same user gets to see this one's memory, and that it is not swapped (`MemorySwapMax=0` in the
//! units).

use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Forbids core files for this process, for good, and other processes of the same user to attach to it or to read its memory.
/// The first thing that a program does.
pub fn keep_memory_private() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Where a service manager has done it, it may have forbidden to set limits as well.
    if getrlimit(Resource::Core) != none {
        setrlimit(Resource::Core, none)?;
    }
    // A kernel that pipes cores to a collector does not ask the limit; this it asks.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The beginning of each of our programs: keeps its memory private and reads its command line. `Err` is how to end where there is
/// nothing to do: help was asked for (0), the command line is wrong (2), or the memory stays open to others (1).
pub fn begin<P: clap::Parser>(program: &str) -> Result<P, ExitCode> {
    // Nobody is left to tell if writing fails, too.
    let complain = |text: &str| {
        let _ = std::io::stderr().write_all(crate::terminal::escaped(text).as_bytes());
    };
    if let Err(why) = keep_memory_private() {
        complain(&format!("{program}: cannot forbid core files, which would hold keys: {why}\n"));
        return Err(ExitCode::FAILURE);
    }
    P::try_parse().map_err(|answer| {
        if answer.use_stderr() {
            // Without colours: it repeats what was typed, which may hold what commands a terminal.
            complain(&answer.render().to_string());
        } else {
            let _ = answer.print();
        }
        ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_keeps_its_memory_private_leaves_no_core_file_and_lets_nobody_look() {
        keep_memory_private().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        // Its own files in /proc stay its own.
        assert!(std::fs::read_to_string("/proc/self/limits").unwrap().contains("Max core file size        0"));
    }
}
