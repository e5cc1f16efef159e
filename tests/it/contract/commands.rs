//! Commands and flags, as `--help` of both programs shows them: value names, environment names,
//! defaults, and possible values. Help texts and the order of flags are not compared.

use std::{fmt::Write as _, process::Command};

use super::golden::compare;

#[test]
fn commands_have_the_same_flags() {
    for (program, path) in [
        ("outbox-relay", env!("CARGO_BIN_EXE_outbox-relay")),
        ("outbox-operator", env!("CARGO_BIN_EXE_outbox-operator")),
    ] {
        let mut text = String::new();
        describe(path, &[], &mut text);
        compare(&format!("commands-{program}.txt"), &text);
    }
}

fn describe(program: &str, command: &[&str], text: &mut String) {
    let output = Command::new(program)
        .args(command)
        .arg("--help")
        .env_clear()
        .output()
        .expect("the program");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let usage = help
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "))
        .unwrap_or_else(|| panic!("{command:?}: {help}"));
    let _ = writeln!(text, "{usage}");
    let mut flags = flags(&help);
    flags.sort();
    for flag in flags {
        let _ = writeln!(text, "  {flag}");
    }
    let _ = writeln!(text);
    for subcommand in subcommands(&help) {
        describe(program, &[command, &[subcommand]].concat(), text);
    }
}

fn subcommands(help: &str) -> Vec<&str> {
    let section = help
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    let lines = section.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// One line for each flag. The lines after a flag belong to it, up to the next flag.
fn flags(help: &str) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    let mut lines = help.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("--") || (line.starts_with('-') && !line.starts_with("- ")) {
            flags.push(line.split("  ").next().unwrap_or_default().to_owned());
        } else if let Some(flag) = flags.last_mut() {
            if ["[env: ", "[default: "]
                .iter()
                .any(|start| line.starts_with(start))
            {
                // The value of an environment variable is printed unless clap hides it.
                let _ = write!(flag, " {}", line.replace("=]", "]"));
            } else if line == "Possible values:" {
                let mut values = Vec::new();
                while let Some(value) = lines.next_if(|line| line.starts_with("- ")) {
                    values.push(value[2..].split(':').next().unwrap_or_default());
                }
                let _ = write!(flag, " [{}]", values.join("|"));
            } else if let Some(values) = line.strip_prefix("[possible values: ") {
                let _ = write!(flag, " [{}", values.replace(", ", "|"));
            }
        }
    }
    // Only a build with the feature planted-bugs has this flag.
    flags.retain(|flag| !flag.starts_with("--planted-bug "));
    flags
}
