//! `owner show|release`. Asking the database is IO, what is printed is pure.

use std::io::Write;

use serde::Serialize;

use crate::{
    cli::{
        CliError, Exit,
        args::{Asked, OwnerOf, Releasing},
        confirm::confirm,
        note, open,
        text::count,
        write,
    },
    outbox::admin::Role,
    settings::Owner,
};

/// Who manages the schema.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Managed {
    owner: Option<Owner>,
    /// Relays whose lease runs.
    relays: usize,
}

/// What became of a release.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Released {
    owner: Owner,
    dry_run: bool,
    released: bool,
}

pub(super) async fn owner(command: OwnerOf, out: &mut impl Write) -> Result<Exit, CliError> {
    match command {
        OwnerOf::Show(arguments) => show(arguments, out).await,
        OwnerOf::Release(arguments) => release(arguments, out).await,
    }
}

async fn show(Asked { place, output }: Asked, out: &mut impl Write) -> Result<Exit, CliError> {
    let desk = open(place, Role::Relay).await?;
    let relays = desk
        .relays()
        .await?
        .0
        .into_iter()
        .filter(|relay| relay.lease_seconds > 0.0)
        .count();
    let managed = Managed {
        owner: desk.owner().await?,
        relays,
    };
    write(out, output, &managed, in_words)?;
    Ok(Exit::Done)
}

fn in_words(managed: &Managed) -> String {
    let relays = count(managed.relays as u64, "relay");
    match &managed.owner {
        Some(owner) => format!("OutboxRelay '{owner}' manages the schema; {relays} at work\n"),
        None => format!(
            "nobody manages the schema: the next OutboxRelay that migrates it will; {relays} at \
             work\n"
        ),
    }
}

async fn release(arguments: Releasing, out: &mut impl Write) -> Result<Exit, CliError> {
    let Releasing {
        asked: Asked { place, output },
        asking,
    } = arguments;
    let desk = open(
        place,
        if asking.dry_run {
            Role::Relay
        } else {
            Role::Owner
        },
    )
    .await?;
    let Some(owner) = desk.owner().await? else {
        note("nobody manages the schema: it is free already");
        return Ok(Exit::NothingMatched);
    };
    let relays = desk
        .relays()
        .await?
        .0
        .into_iter()
        .filter(|relay| relay.lease_seconds > 0.0)
        .count();
    let mut released = Released {
        owner,
        dry_run: asking.dry_run,
        released: false,
    };
    if !asking.dry_run {
        if let Err(exit) = confirm(&asking, &question(&released.owner, relays))? {
            return Ok(exit);
        }
        released.released = desk.release_owner(&released.owner).await?;
    }
    write(out, output, &released, told)?;
    Ok(Exit::Done)
}

fn question(owner: &Owner, relays: usize) -> String {
    let at_work = match relays {
        0 => "None of its relays is at work.".to_owned(),
        relays => format!(
            "{} still at work; they go on until they are stopped.",
            count(relays as u64, "relay")
        ),
    };
    format!("Take the schema away from OutboxRelay '{owner}'? {at_work}")
}

fn told(released: &Released) -> String {
    let Released {
        owner,
        dry_run,
        released,
    } = released;
    match (dry_run, released) {
        (true, _) => format!("would take the schema away from OutboxRelay '{owner}'\n"),
        (false, true) => {
            "the schema is free: the next OutboxRelay that migrates it becomes its owner\n"
                .to_owned()
        }
        (false, false) => {
            format!("OutboxRelay '{owner}' does not manage the schema any more; nothing was done\n")
        }
    }
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
    fn relays_at_work_are_named_before_their_schema_is_taken_away() {
        let owner = Owner {
            cluster: "c".to_owned(),
            namespace: "n".to_owned(),
            name: "files".to_owned(),
        };
        assert!(
            question(&owner, 2).contains("2 relays still at work"),
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
            .starts_with("nobody")
        );
    }
}
