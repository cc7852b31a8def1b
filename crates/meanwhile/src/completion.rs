//! `meanwhile completion`: what a shell knows of this command line.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory as _;

use crate::cli::{Cli, Shell};

/// `meanwhile completion`
pub(crate) fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(&script(shell)).context("writing the script")?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meanwhile", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_the_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["dead-letters", "watch", "correlation-id"] {
                assert!(script.contains(word), "{shell:?}: {word}");
            }
        }
    }
}
