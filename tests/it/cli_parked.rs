//! `outbox-relay parked` and `owner` against real servers, and the help and the documentation of
//! all commands.

use serde_json::Value;

use crate::{
    cli::{Cli, outbox_relay, stderr, with_settings},
    harness::{
        pgbouncer::{shared, through},
        postgres::{Database, execute, value, values},
    },
};

/// Creates rows 1 and 3 of key f1, and 2 and 4 of f2. Both keys are parked behind their first rows.
async fn with_parked(database: &Database) -> sqlx::PgConnection {
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        "select outbox.enqueue('file', 'f' || 2 - i % 2, 'E' || i, '{}') from generate_series(1, \
         4) i;
      select outbox.park_key('files', aggregate_id, lane, id, event_id, 'RecordRejected') \
      from outbox.event where id <= 2",
    )
    .await;
    owner
}

fn names(parked: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    parked
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| format!("{} {}", text(&entry["topic"]), text(&entry["key"])))
        .collect()
}

on_each_server! {
    async fn a_topic_and_a_key_are_parked_by_hand_and_retried(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_parked(&database).await;
        let cli = Cli::new(&database);
        assert_eq!(
            cli.ends(0, "parked add --topic files --dry-run"),
            "would park topic 'files'\n"
        );
        assert_eq!(cli.run("parked add --topic files").status.code(), Some(4));
        assert_eq!(names(&cli.json("parked list")).len(), 2);
        assert_eq!(
            cli.ends(0, "parked add --topic files --yes"),
            "parked topic 'files'\n"
        );
        assert_eq!(
            cli.ends(0, "parked add --topic files --key f3 --yes"),
            "parked key 'f3' of topic 'files'\n"
        );
        assert_eq!(
            cli.ends(0, "parked add --topic files --key f3 --yes"),
            "already parked: \
            key 'f3' of topic 'files'\n"
        );
        let typo = cli.run("parked add --topic fils --yes");
        assert_eq!(typo.status.code(), Some(1));
        assert!(
            stderr(&typo).contains("TopicNotDeclared") && stderr(&typo).contains("'files'"),
            "{typo:?}"
        );

        let by_hand = cli.json("parked list --class ParkedByHand");
        assert_eq!(names(&by_hand), ["files -", "files f3"]);
        // The lane is that of the key's rows, because relays read parked keys by lane.
        execute(
            &mut owner,
            "select outbox.enqueue('file', 'f3', 'E5', '{}')",
        )
        .await;
        let lane = value::<i16>(
            &mut owner,
            "select lane from outbox.event where aggregate_id = \
            'f3'",
        )
        .await;
        assert_eq!(by_hand[1]["lane"], lane);

        assert_eq!(
            cli.ends(0, "parked retry --class ParkedByHand --yes"),
            "unparked 2 topics or \
            keys\n"
        );
        assert_eq!(names(&cli.json("parked list")), ["files f1", "files f2"]);
        assert_eq!(
            cli.ends(0, "parked retry --key f1 --yes"),
            "unparked 1 topic or key\n"
        );
        assert_eq!(names(&cli.json("parked list")), ["files f2"]);
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.event").await,
            5
        );
        cli.ends(3, "parked retry --key f1 --yes");
    }
}

on_each_server! {
    async fn skipping_moves_only_the_rejected_row_to_the_dead_letters(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_parked(&database).await;
        let cli = Cli::new(&database);
        cli.ends(0, "parked add --topic files --key f3 --yes");
        let dry = cli.ends(0, "parked skip --all --dry-run");
        assert!(dry.ends_with("would skip 2 rejected rows\n"), "{dry}");
        let output = cli.run("parked skip --topic files --yes");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "skipped 2 rejected rows\n"
        );
        assert!(stderr(&output).contains("1 parked by hand"), "{output:?}");
        assert_eq!(
            values::<String>(
                &mut owner,
                "select event_type from outbox.event order by id"
            )
            .await,
            ["E3", "E4"]
        );
        assert_eq!(
            values::<String>(
                &mut owner,
                "select event_type from outbox.dead_letter order \
            by id"
            )
            .await,
            ["E1", "E2"]
        );
        assert_eq!(names(&cli.json("parked list")), ["files f3"]);
        cli.ends(3, "parked skip --all --yes");
    }
}

on_each_server! {
    async fn the_owner_is_shown_and_the_schema_freed_for_another(database: Database) {
        let database = database.migrated().await;
        let cli = Cli::new(&database);
        assert!(
            cli.ends(0, "owner show")
                .contains("'test/essays/file-service'")
        );
        let refused = cli.run("owner release");
        assert_eq!(refused.status.code(), Some(4));
        assert!(
            stderr(&refused).contains("'test/essays/file-service'"),
            "{refused:?}"
        );
        assert!(
            cli.ends(0, "owner release --dry-run")
                .starts_with("would release")
        );
        assert_eq!(cli.json("owner show")["owner"]["cluster"], "test");
        assert!(
            cli.ends(0, "owner release --yes")
                .starts_with("the schema is released")
        );
        assert_eq!(cli.json("owner show")["owner"], Value::Null);
        cli.ends(3, "owner release --yes");

        let mut settings = database.settings();
        settings.owner.name = "essay-service".to_owned();
        assert_eq!(database.migrate(&settings).await.problem, None);
        assert!(
            cli.ends(0, "owner show")
                .contains("'test/essays/essay-service'")
        );
    }
}

#[tokio::test]
async fn the_commands_work_behind_a_pooler() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_parked(&database).await;
    let mut settings = through(database.settings(), shared());
    // The owner's commands also use the pooler.
    settings.migration.database = None;
    database.write_secrets(&database.owner, database.password());
    let run_command = |command: &str| {
        let output = with_settings(&database, &settings, command);
        assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(run_command("status").contains("2 parked keys"));
    assert_eq!(
        run_command("parked skip --key f1 --yes"),
        "skipped 1 rejected row\n"
    );
    assert_eq!(
        run_command("parked retry --all --yes"),
        "unparked 1 topic or key\n"
    );
    assert_eq!(
        run_command("dead-letters requeue --all --yes"),
        "requeued 1 dead letter\n"
    );
    assert_eq!(
        values::<String>(
            &mut owner,
            "select event_type from outbox.event order by id"
        )
        .await,
        ["E2", "E3", "E4", "E1"]
    );
    assert!(run_command("migrate --dry-run").ends_with("commit;\n"));
}

on_each_server! {
    /// The case of docs/cli.md: a pod has no secret of the owner.
    async fn the_relays_user_can_run_the_commands_with_rights_granted_by_hand(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_parked(&database).await;
        execute(
            &mut owner,
            "select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) \
            from outbox.event where id > 2",
        )
        .await;
        let call = |command: &str| with_settings(&database, &database.settings(), command);
        let without_the_owner = || {
            ["migration/username", "migration/password"].map(|file| database.remove_secret(file))
        };
        without_the_owner();
        let refused = call("parked add --topic files --yes");
        assert!(
            stderr(&refused).starts_with("error: InsufficientPrivilege: "),
            "{refused:?}"
        );

        let page = include_str!("../../docs/cli.md");
        let grants = page
            .split("```sql")
            .nth(1)
            .and_then(|text| text.split("```").next())
            .expect("a block of SQL");
        execute(&mut owner, &grants.replace("relay_user", &database.relay)).await;
        database.write_secrets(&database.relay, database.password());
        assert_eq!(database.migrate(&database.settings()).await.problem, None);
        without_the_owner();
        for command in [
            "parked add --topic files --yes",
            "parked add --topic files --key f9 --yes",
            "parked retry --class ParkedByHand --yes",
            "parked skip --key f1 --yes",
            "parked retry --all --yes",
            "dead-letters requeue --key f1 --limit 1 --yes",
            "dead-letters discard --all --yes",
        ] {
            let output = call(command);
            assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
        }
        assert_eq!(call("owner release --yes").status.code(), Some(1));
    }
}

/// All commands except groups.
const COMMANDS: [&str; 13] = [
    "migrate",
    "run",
    "status",
    "dead-letters list",
    "dead-letters show",
    "dead-letters requeue",
    "dead-letters discard",
    "parked list",
    "parked add",
    "parked retry",
    "parked skip",
    "owner show",
    "owner release",
];

fn help(command: &str) -> String {
    let arguments: Vec<String> = command
        .split(' ')
        .chain(["--help"])
        .map(str::to_owned)
        .collect();
    let output = outbox_relay(&arguments);
    assert_eq!(output.status.code(), Some(0), "{command}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn each_command_and_each_option_is_documented() {
    let page = include_str!("../../docs/cli.md");
    for command in COMMANDS {
        assert!(
            page.contains(&format!("outbox-relay {command}")),
            "docs/cli.md does not name '{command}'"
        );
        let help = help(command);
        let options = help
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphabetic())) {
            assert!(
                page.contains(&format!("--{option}")),
                "docs/cli.md does not name '--{option}' of '{command}'"
            );
        }
    }
}

#[test]
fn without_a_manifest_the_files_of_a_pod_are_read() {
    let output = outbox_relay(&["status".to_owned()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/etc/outbox-relay/settings.yaml"),
        "{output:?}"
    );
}
