//! `owner show|release`. Querying the database is IO, making the output is pure.

use std::io::Write;

use serde::Serialize;

use crate::{
    cli::{
        CliError, Exit,
        args::{CommonArgs, OwnerCommand, ReleaseArgs},
        confirm::{Answer, confirm},
        note, open,
        text::count,
        write,
    },
    outbox::admin::{AdminClient, AdminError, Role},
    settings::Owner,
};

/// Output of `owner show`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Managed {
    owner: Option<Owner>,
    /// Number of relays with a valid lease.
    relays: usize,
}

/// Output of `owner release`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Released {
    owner: Owner,
    dry_run: bool,
    released: bool,
}

/// Runs a subcommand of `owner`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// If dropped midway, the schema may be released, or not.
pub(super) async fn owner(command: OwnerCommand, out: &mut impl Write) -> Result<Exit, CliError> {
    match command {
        OwnerCommand::Show(arguments) => show(arguments, out).await,
        OwnerCommand::Release(arguments) => release(arguments, out).await,
    }
}

async fn show(arguments: CommonArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let CommonArgs { config, output } = arguments;
    let client = open(config, Role::Relay).await?;
    let relays = active_relays(&client).await?;
    let owner = client.owner().await?;
    write(out, output, &Managed { owner, relays }, in_words)?;
    Ok(Exit::Done)
}

/// Number of relays with a valid lease.
async fn active_relays(client: &AdminClient) -> Result<usize, AdminError> {
    let (relays, _) = client.relays().await?;
    Ok(relays.iter().filter(|relay| relay.is_active()).count())
}

fn in_words(managed: &Managed) -> String {
    let relays = count(managed.relays as u64, "relay");
    match &managed.owner {
        Some(owner) => format!("OutboxRelay '{owner}' manages the schema; {relays} active\n"),
        None => format!(
            "the schema has no owner: the next OutboxRelay that migrates it becomes its owner; \
             {relays} active\n"
        ),
    }
}

async fn release(arguments: ReleaseArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let ReleaseArgs {
        common: CommonArgs { config, output },
        confirm: confirm_args,
    } = arguments;
    let client = open(config, confirm_args.role()).await?;
    let Some(owner) = client.owner().await? else {
        note("the schema has no owner: there is nothing to release");
        return Ok(Exit::NothingMatched);
    };
    let relays = active_relays(&client).await?;
    let mut released = Released {
        owner,
        dry_run: confirm_args.dry_run,
        released: false,
    };
    if !confirm_args.dry_run {
        if confirm(&confirm_args, &question(&released.owner, relays))? == Answer::No {
            return Ok(Exit::Refused);
        }
        released.released = client.release_owner(&released.owner).await?;
    }
    write(out, output, &released, describe)?;
    Ok(Exit::Done)
}

fn question(owner: &Owner, relays: usize) -> String {
    let at_work = match relays {
        0 => "None of its relays is active.".to_owned(),
        relays => format!(
            "{} still active; stop them, or they keep running.",
            count(relays as u64, "relay")
        ),
    };
    format!("Release the schema from OutboxRelay '{owner}'? {at_work}")
}

fn describe(result: &Released) -> String {
    let owner = &result.owner;
    if result.dry_run {
        return format!("would release the schema from OutboxRelay '{owner}'\n");
    }
    if result.released {
        return "the schema is released: the next OutboxRelay that migrates it becomes its owner\n"
            .to_owned();
    }
    format!("OutboxRelay '{owner}' no longer manages the schema; nothing was done\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_of_json() {
        let owner = || Owner {
            cluster: "c".to_owned(),
            namespace: "n".to_owned(),
            name: "files".to_owned(),
        };
        let shown = [
            Managed {
                owner: Some(owner()),
                relays: 2,
            },
            Managed {
                owner: None,
                relays: 0,
            },
        ];
        crate::golden::compare("cli-owner.json", &crate::cli::text::json(&shown));
        let released = Released {
            owner: owner(),
            dry_run: false,
            released: true,
        };
        crate::golden::compare(
            "cli-owner-released.json",
            &crate::cli::text::json(&released),
        );
    }

    #[test]
    fn active_relays_are_mentioned_before_their_schema_is_taken_away() {
        let owner = Owner {
            cluster: "c".to_owned(),
            namespace: "n".to_owned(),
            name: "files".to_owned(),
        };
        assert!(
            question(&owner, 2).contains("2 relays still active"),
            "{}",
            question(&owner, 2)
        );
        assert!(
            question(&owner, 0).contains("'c/n/files'"),
            "{}",
            question(&owner, 0)
        );
        assert!(
            in_words(&Managed {
                owner: None,
                relays: 0
            })
            .starts_with("the schema has no owner")
        );
    }
}
