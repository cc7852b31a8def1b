//! `meanwhile completion`: what a shell knows of this command line.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Command, CommandFactory as _, ValueHint};

use crate::cli::{Cli, Shell};

/// `meanwhile completion`
pub(crate) fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(&script(shell)).context("writing the script")?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> Vec<u8> {
    let (mut script, mut command) = (Vec::new(), without_files(Cli::command()));
    match shell {
        Shell::Bash => {
            clap_complete::generate(clap_complete::Shell::Bash, &mut command, "meanwhile", &mut script);
            script = with_flows(&String::from_utf8_lossy(&script)).into_bytes();
        }
        Shell::Zsh => clap_complete::generate(clap_complete::Shell::Zsh, &mut command, "meanwhile", &mut script),
        Shell::Fish => clap_complete::generate(clap_complete::Shell::Fish, &mut command, "meanwhile", &mut script),
    }
    script
}

/// Values that are no files are not completed as files.
fn without_files(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_value_hint() {
        ValueHint::Unknown if arg.get_action().takes_values() => arg.value_hint(ValueHint::Other),
        _ => arg,
    });
    command.mut_subcommands(without_files)
}

/// The values of `--flow` are the active flows, where the API answers.
fn with_flows(script: &str) -> String {
    let nothing = "--flow)\n                    COMPREPLY=(\"${cur}\")";
    let flows =
        "--flow)\n                    COMPREPLY=($(compgen -W \"$(meanwhile flows list 2>/dev/null)\" -- \"${cur}\"))";
    script.replace(nothing, flows)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Completes a command line by a real bash; the last word is the one under the cursor.
    fn completed(words: &[&str]) -> Vec<String> {
        let (last, before) = words.split_last().unwrap();
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "meanwhile() {{ [ \"$*\" = 'flows list' ] && printf 'order\\ndropship\\n'; }}\n{}\n\
             COMP_WORDS=({}); COMP_CWORD={}; _meanwhile meanwhile '{last}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            String::from_utf8(script(Shell::Bash)).unwrap(),
            quoted.join(" "),
            before.len(),
            before.last().unwrap(),
        );
        // By a file: the script is longer than an argument may be.
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(ask.as_bytes()).unwrap();
        let output = std::process::Command::new("bash").arg(file.path()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        told.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_words_where_there_are_words_and_files_only_for_files() {
        assert_eq!(completed(&["meanwhile", "jobs", "list", "--status", "ca"]), ["cancelled"]);
        assert_eq!(
            completed(&["meanwhile", "dead-letters", "list", "--class", "unk"]),
            ["unknown-flow", "unknown-topic"]
        );
        assert_eq!(completed(&["meanwhile", "jobs", "list", "--flow", "o"]), ["order"]);
        assert_eq!(completed(&["meanwhile", "dead-letters", "redrive", "--flow", ""]), ["order", "dropship"]);
        assert_eq!(completed(&["meanwhile", "jobs", "list", "--since", ""]), Vec::<String>::new());
        // The test runs in the folder of its crate.
        assert_eq!(completed(&["meanwhile", "flows", "prove", "--input", "Cargo"]), ["Cargo.toml"]);
    }

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
