//! `make sim`: runs seeds, and says which of them fail and how to see it again.

#![cfg_attr(ehe_sim, allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal"))]

#[cfg(ehe_sim)]
mod program;

#[cfg(ehe_sim)]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(ehe_sim))]
fn main() {}
