//! Breaks the servers and relays while services write, with faults that a seed determines. Then it
//! checks the records in Kafka. See README.md in this folder.

#![expect(clippy::print_stdout, reason = "people read the output")]

mod checker;
mod controls;
mod diagnostics;
mod facts;
mod faults;
mod ledger;
mod rng;
mod run;
mod schedule;
mod servers;
mod testbed;
mod topics;
mod writers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::schedule::FaultKind;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Performs one run. Exit code 1 if a promise was broken.
    Run(Run),
    /// Prints the faults of a run with their times.
    Schedule(Schedule),
    /// Prints the names of the bugs that a run must find with `run --control NAME`.
    Controls,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    schedule: Schedule,
    /// Plants this bug, with faults that provoke it. Exit code 1 if no promise was broken.
    #[arg(long)]
    control: Option<String>,
    /// Transactions per second.
    #[arg(long, default_value_t = 250)]
    rate: u32,
    /// Longest time that a transaction stays open, in seconds.
    #[arg(long, default_value_t = 30)]
    held_max: u64,
    /// Number of topics that exist from the start, of 12 partitions each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..))]
    topics: u8,
    /// Delay each way between one of the relays and its servers, in milliseconds.
    #[arg(long, default_value_t = 3)]
    delay_ms: u64,
    /// The relay's program.
    #[arg(long)]
    relay: PathBuf,
    /// The program of a relay of another version. Default: the relay's own program.
    #[arg(long)]
    other_relay: Option<PathBuf>,
    /// Root folder of the repository.
    #[arg(long)]
    root: PathBuf,
    /// Folder for data and logs. It is emptied first.
    #[arg(long)]
    folder: PathBuf,
}

#[derive(Args)]
struct Schedule {
    #[arg(long)]
    seed: u64,
    /// Time from the start to the end of the last fault, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Only these kinds of faults. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<FaultKind>,
}

impl Schedule {
    fn draw(&self) -> Vec<schedule::Fault> {
        let kinds = if self.faults.is_empty() {
            FaultKind::value_variants()
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
                    fault.duration.as_secs_f64()
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
