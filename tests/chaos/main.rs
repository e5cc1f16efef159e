//! Breaks what a relay rests on, from a seed, while services write; then judges what Kafka has. See
//! README.md beside it.

#![expect(clippy::print_stdout, reason = "what it prints is for people")]

mod checker;
mod controls;
mod dice;
mod facts;
mod faults;
mod ledger;
mod run;
mod schedule;
mod servers;
mod testimony;
mod topics;
mod world;
mod writers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::schedule::Kind;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run. Exit code 1 when a promise was broken.
    Run(Run),
    /// Prints what a run would break, and when.
    Schedule(Schedule),
    /// Prints the names of bugs that a run must find: `run --control NAME`.
    Controls,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    schedule: Schedule,
    /// With a planted bug, and faults that provoke it. Exit code 1 when no promise was broken.
    #[arg(long)]
    control: Option<String>,
    /// Transactions a second.
    #[arg(long, default_value_t = 250)]
    rate: u32,
    /// Longest time that a transaction stays open, in seconds.
    #[arg(long, default_value_t = 30)]
    held_max: u64,
    /// The relay's program.
    #[arg(long)]
    relay: PathBuf,
    /// A relay of another version; none: the same.
    #[arg(long)]
    other_relay: Option<PathBuf>,
    /// The repository.
    #[arg(long)]
    root: PathBuf,
    /// Where data and logs go; emptied first.
    #[arg(long)]
    folder: PathBuf,
}

#[derive(Args)]
struct Schedule {
    #[arg(long)]
    seed: u64,
    /// How long things are broken.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Only these faults; none: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
}

impl Schedule {
    fn draw(&self) -> Vec<schedule::Fault> {
        let kinds = if self.faults.is_empty() {
            Kind::value_variants()
        } else {
            &self.faults
        };
        schedule::draw(self.seed, Duration::from_secs(self.seconds), kinds)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => Box::pin(run::run(arguments)).await,
        Command::Schedule(arguments) => {
            for fault in arguments.draw() {
                println!(
                    "   {:>6.1} s  {} for {:.1} s",
                    fault.at.as_secs_f64(),
                    faults::name(fault.kind),
                    fault.during.as_secs_f64()
                );
            }
            Ok(true)
        }
        Command::Controls => {
            controls::CONTROLS
                .iter()
                .for_each(|control| println!("{}", control.name));
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Run {
    fn load(&self) -> writers::Load {
        writers::Load {
            rate: self.rate,
            held_max: Duration::from_secs(self.held_max),
        }
    }
}
