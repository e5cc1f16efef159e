//! `outbox-relay status` and `dead-letters` against real servers: what the program finds, prints
//! and changes, and its exit codes.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use outbox_relay::settings::RelaySettings;
use serde_json::Value;

use crate::harness::postgres::{Database, execute, value, values};

/// The program without a terminal, as in a script.
pub(crate) struct Cli {
    manifest: PathBuf,
}

impl Cli {
    pub(crate) fn new(database: &Database) -> Self {
        Self {
            manifest: database.manifest(""),
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
        command
            .args(arguments.split(' '))
            .arg("--manifest")
            .arg(&self.manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the program")
    }

    /// Runs a command that must end with this exit code. Returns its standard output.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a command that must succeed. Returns its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ends(0, &format!("{arguments} --output json"))).expect("JSON")
    }
}

pub(crate) fn outbox_relay(arguments: &[String]) -> Output {
    let program = env!("CARGO_BIN_EXE_outbox-relay");
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program")
}

/// Runs the program with these settings and the database's secret files, as in a pod.
pub(crate) fn with_settings(
    database: &Database,
    settings: &RelaySettings,
    command: &str,
) -> Output {
    database.write_secret(
        "settings.yaml",
        &serde_yaml::to_string(settings).expect("plain data"),
    );
    let folder = database.secrets_folder().display().to_string();
    let place = [
        "--settings".to_owned(),
        format!("{folder}/settings.yaml"),
        "--secrets".to_owned(),
        folder,
    ];
    outbox_relay(
        &command
            .split(' ')
            .map(str::to_owned)
            .chain(place)
            .collect::<Vec<_>>(),
    )
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Creates dead letters: f1 to f3 of topic files, and f4 of topic essays with another class and an
/// age of an hour. Row f5 still waits.
async fn with_dead_letters(database: &Database) -> sqlx::PgConnection {
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        r#"
      select outbox.enqueue('file', 'f' || i, 'Uploaded', '{"secret": 1}',
        headers => '{"trace": "hidden value"}') from generate_series(1, 5) i;
      select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) from outbox.event
        where id <= 3;
      select outbox.bury(lane, id, event_id, 'essays', 'KafkaError', 1) from outbox.event
        where id = 4;
      update outbox.dead_letter set failed_at = failed_at - interval '61 minutes'
        where id = 4"#,
    )
    .await;
    owner
}

/// Compares two long lists, and reports only the first difference.
#[track_caller]
fn assert_in_order(found: &[String], expected: impl Iterator<Item = String>) {
    let expected: Vec<String> = expected.collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(
        found
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != expected),
        None
    );
}

fn keys(dead_letters: &Value) -> Vec<String> {
    dead_letters
        .as_array()
        .expect("a list")
        .iter()
        .map(|letter| letter["key"].as_str().expect("a key").to_owned())
        .collect()
}

on_each_server! {
    async fn dead_letters_are_found_by_each_condition(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let cli = Cli::new(&database);
        let event_id = value::<String>(
            &mut owner,
            "select event_id::text from outbox.dead_letter \
            where id = 2",
        )
        .await;
        for (conditions, expected) in [
            (String::new(), vec!["f1", "f2", "f3", "f4"]),
            (" --topic files".to_owned(), vec!["f1", "f2", "f3"]),
            (" --key f4".to_owned(), vec!["f4"]),
            (" --class KafkaError".to_owned(), vec!["f4"]),
            (" --older-than 1h".to_owned(), vec!["f4"]),
            (format!(" --event-id {event_id}"), vec!["f2"]),
            (" --topic files --limit 2".to_owned(), vec!["f1", "f2"]),
            (" --topic essays --class RecordRejected".to_owned(), vec![]),
        ] {
            assert_eq!(
                keys(&cli.json(&format!("dead-letters list{conditions}"))),
                expected,
                "{conditions}"
            );
        }
        let list = cli.run("dead-letters list --limit 2");
        assert!(
            stderr(&list).contains("there are more: raise --limit"),
            "{list:?}"
        );
    }
}

on_each_server! {
    async fn payloads_and_header_values_are_shown_only_when_asked_for(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        execute(
            &mut owner,
            r"update outbox.dead_letter set payload = '\x00ff' where id = 2",
        )
        .await;
        let cli = Cli::new(&database);
        for command in [
            "dead-letters list",
            "dead-letters list --output json",
            "dead-letters show",
            "dead-letters show --output json",
        ] {
            let text = cli.ends(0, command);
            assert!(
                !text.contains("secret") && !text.contains("hidden"),
                "{command}: {text}"
            );
        }
        let text = cli.ends(0, "dead-letters show --key f1 --show-payload");
        assert!(
            text.contains(r#"{"secret": 1}"#) && text.contains("hidden value"),
            "{text}"
        );
        let json = cli.json("dead-letters show --show-payload");
        assert_eq!(
            (
                json[0]["payload"].as_str(),
                json[0]["headers"]["trace"].as_str()
            ),
            (Some(r#"{"secret": 1}"#), Some("hidden value"))
        );
        assert_eq!(
            (
                json[1]["payload"].as_str(),
                json[1]["payloadBase64"].as_str()
            ),
            (None, Some("AP8="))
        );
        cli.ends(3, "dead-letters show --key nobody");
    }
}

on_each_server! {
    async fn nothing_changes_without_a_condition_or_a_confirmation(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let cli = Cli::new(&database);
        for command in ["requeue", "discard"] {
            cli.ends(2, &format!("dead-letters {command} --yes"));
            cli.ends(2, &format!("dead-letters {command} --limit 1 --yes"));
            cli.ends(2, &format!("dead-letters {command} --all --key f1 --yes"));
            let refused = cli.run(&format!("dead-letters {command} --all"));
            assert_eq!(refused.status.code(), Some(4), "{refused:?}");
            assert!(
                stderr(&refused).contains("4 dead letters") && stderr(&refused).contains("--yes"),
                "{refused:?}"
            );
            let dry = cli.ends(0, &format!("dead-letters {command} --all --dry-run"));
            assert!(
                dry.contains("f4")
                    && dry.ends_with(&format!(
                        "would {command} 4 dead \
                letters\n"
                    )),
                "{dry}"
            );
            cli.ends(3, &format!("dead-letters {command} --key nobody --yes"));
        }
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.dead_letter").await,
            4
        );
    }
}

on_each_server! {
    async fn requeued_dead_letters_return_and_the_others_stay(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let cli = Cli::new(&database);
        assert_eq!(
            cli.ends(0, "dead-letters requeue --topic files --limit 2 --yes"),
            "requeued 2 dead letters\n"
        );
        assert_eq!(
            values::<String>(
                &mut owner,
                "select aggregate_id from outbox.event order by \
            id"
            )
            .await,
            ["f5", "f1", "f2"]
        );
        assert_eq!(
            values::<String>(
                &mut owner,
                "select aggregate_id from outbox.dead_letter \
            order by id"
            )
            .await,
            ["f3", "f4"]
        );
        let json = cli.json("dead-letters requeue --all --yes");
        assert_eq!(
            (
                json["action"].as_str(),
                json["matched"].as_u64(),
                json["done"].as_u64()
            ),
            (Some("requeue"), Some(2), Some(2))
        );
    }
}

on_each_server! {
    async fn discarded_dead_letters_are_deleted_and_the_others_stay(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let cli = Cli::new(&database);
        assert_eq!(
            cli.ends(0, "dead-letters discard --class KafkaError --yes"),
            "discarded 1 dead letter\n"
        );
        assert_eq!(
            values::<String>(
                &mut owner,
                "select aggregate_id from outbox.dead_letter \
            order by id"
            )
            .await,
            ["f1", "f2", "f3"]
        );
        assert_eq!(
            values::<String>(&mut owner, "select aggregate_id from outbox.event").await,
            ["f5"]
        );
    }
}

on_each_server! {
    async fn many_dead_letters_are_requeued_in_batches_with_progress(database: Database) {
        let database = database.migrated().await;
        let mut owner = database.connect_as(&database.owner).await;
        execute(&mut owner, "select outbox.enqueue('file', 'f' || i % 7, 'E' || i, '{}') \
            from generate_series(1, 1234) i;
          select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) \
          from outbox.event").await;
        let output = Cli::new(&database).run("dead-letters requeue --all --yes");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let far = ["500", "1,000", "1,234"].map(|done| {
            format!(
                "requeued {done} of 1,234 dead \
            letters"
            )
        });
        let stderr = stderr(&output);
        let (log, progress): (Vec<_>, Vec<_>) =
            stderr.lines().partition(|line| line.starts_with('{'));
        assert_eq!(progress, far);
        // 50 rows have a line, and the others are counted.
        assert_eq!(log.len(), 51, "{log:?}");
        assert!(log[0].contains("\"event_type\":\"E1\"") && log[50].contains("\"rows\":1184"), "{log:?}");
        let types = values::<String>(
            &mut owner,
            "select event_type from outbox.event order by id",
        )
        .await;
        assert_in_order(&types, (1..=1234).map(|i| format!("E{i}")));
    }
}

on_each_server! {
    /// A writer of a key in the second batch blocks the program until it is killed.
    async fn a_killed_requeue_loses_nothing_and_continues_where_it_stopped(database: Database) {
        let database = database.migrated().await;
        let mut owner = database.connect_as(&database.owner).await;
        execute(&mut owner, "select outbox.enqueue('file', case i when 700 then 'held' else 'f1' \
            end, 'E' || i, '{}') from generate_series(1, 1200) i;
          select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) \
          from outbox.event").await;
        let mut writer = database.connect_as(&database.producer).await;
        execute(
            &mut writer,
            "begin; select outbox.enqueue('file', 'held', 'Later', '{}')",
        )
        .await;
        let cli = Cli::new(&database);
        let mut child = cli
            .command("dead-letters requeue --all --yes")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(line, "requeued 500 of 1,200 dead letters\n");
        child.kill().expect("killed");
        child.wait().expect("ended");
        execute(&mut writer, "commit").await;
        // The server may still complete a statement of the killed program.
        let both =
            "select event_id from outbox.event union all select event_id from outbox.dead_letter";
        let count = format!(
            "select format('%s %s', count(*), count(distinct event_id)) \
            from ({both}) as both_tables"
        );
        assert_eq!(value::<String>(&mut owner, &count).await, "1201 1201");

        let output = cli.run("dead-letters requeue --all --yes");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(value::<String>(&mut owner, &count).await, "1201 1201");
        let of_key = |key: &str| {
            format!(
                "select event_type from outbox.event where aggregate_id \
            = '{key}' order by id"
            )
        };
        let types = values::<String>(&mut owner, &of_key("f1")).await;
        assert_in_order(
            &types,
            (1..=1200).filter(|i| *i != 700).map(|i| format!("E{i}")),
        );
        assert_eq!(
            values::<String>(&mut owner, &of_key("held")).await,
            ["Later", "E700"]
        );
    }
}

on_each_server! {
    async fn a_hostile_key_breaks_neither_table_nor_terminal(database: Database) {
        let database = database.migrated().await;
        let mut owner = database.connect_as(&database.owner).await;
        execute(&mut owner, r#"
          select outbox.enqueue('file', E'a\nb\x1b[2J\u202e' || chr(155), E'type\r\x07', '{}',
            headers => '{"\u001b[2J": "v"}');
          select outbox.enqueue('file', repeat('x', 1000000), 'Uploaded', '{}');
          select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1)
            from outbox.event"#).await;
        let cli = Cli::new(&database);
        let list = cli.ends(0, "dead-letters list");
        assert_eq!(list.lines().count(), 3, "{list:?}");
        assert!(
            list.lines().all(|line| line.chars().count() < 300),
            "{list:?}"
        );
        for text in [
            list,
            cli.ends(0, "dead-letters show --show-payload"),
            cli.ends(0, "dead-letters list --output json"),
        ] {
            assert!(
                !text
                    .chars()
                    .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
                "{text:?}"
            );
        }
        assert_eq!(
            keys(&cli.json("dead-letters list"))[0],
            "a\nb\u{1b}[2J\u{202e}\u{9b}"
        );
    }
}

on_each_server! {
    async fn status_shows_instances_parked_keys_and_dead_letters(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let mut relay = database.connect_as(&database.relay).await;
        execute(&mut relay, "
          insert into outbox.relay (instance, pod, lease_until) values
            ('00000000-0000-0000-0000-000000000001', 'relay-0', now() + interval '10 minutes'),
            ('00000000-0000-0000-0000-000000000002', 'relay-1', now() - interval '10 minutes');
          update outbox.lane set owner = '00000000-0000-0000-0000-000000000001' where lane < 40;
          update outbox.lane set owner = '00000000-0000-0000-0000-000000000002' where lane = 63;
          select outbox.park_key('files', 'f5', lane, id, event_id, 'RecordRejected') \
          from outbox.event").await;
        execute(
            &mut owner,
            "insert into outbox.parked_topic (topic) values ('essays')",
        )
        .await;
        let cli = Cli::new(&database);
        let json = cli.json("status");
        assert_eq!(
            (json["schema"].as_str(), json["owner"]["name"].as_str()),
            (Some("outbox"), Some("file-service"))
        );
        assert_eq!(
            (
                json["waiting"]["rows"].as_u64(),
                json["waiting"]["capped"].as_bool()
            ),
            (Some(1), Some(false))
        );
        assert_eq!(json["relays"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (
                json["relays"][0]["pod"].as_str(),
                json["relays"][0]["lanes"].as_array().map(Vec::len)
            ),
            (Some("relay-0"), Some(40))
        );
        assert_eq!(
            json["lanesWithoutRelay"],
            serde_json::json!((40..64).collect::<Vec<_>>())
        );
        let aside: Vec<String> = json["putAside"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|aside| {
                format!(
                    "{} {} {} {}",
                    aside["kind"], aside["topic"], aside["class"], aside["number"]
                )
                .replace('"', "")
            })
            .collect();
        assert_eq!(
            aside,
            [
                "parkedKeys files RecordRejected 1",
                "deadLetters essays KafkaError 1",
                "deadLetters files RecordRejected 3",
                "parkedTopic essays ParkedByHand 1",
            ]
        );
        let text = cli.ends(0, "status");
        assert!(
            text.contains("relay-0")
                && text.contains("24 lanes without a relay: 40-63")
                && text.contains("3 dead letters"),
            "{text}"
        );
    }
}

on_each_server! {
    async fn the_relays_credentials_allow_reading_and_no_changes(database: Database) {
        let database = database.migrated().await;
        let mut owner = with_dead_letters(&database).await;
        let mut settings = database.settings();
        settings.migration.database = None;
        let call = |command: &str| with_settings(&database, &settings, command);
        for command in [
            "status",
            "dead-letters list",
            "dead-letters show --show-payload",
            "dead-letters requeue --all --dry-run",
            "parked list",
            "owner show",
            "owner release --dry-run",
        ] {
            let output = call(command);
            assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
        }
        for command in [
            "dead-letters requeue --all --yes",
            "dead-letters discard --all --yes",
            "parked add --topic files --yes",
            "owner release --yes",
        ] {
            let output = call(command);
            assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
            assert!(
                stderr(&output).starts_with("error: InsufficientPrivilege: ")
                    && stderr(&output).contains("migration.database"),
                "{output:?}"
            );
        }
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.dead_letter").await,
            4
        );
    }
}

on_each_server! {
    async fn a_failure_is_one_line_with_its_class(database: Database) {
        let cli = Cli::new(&database);
        let output = cli.run("status");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).starts_with("error: SchemaNotReady: ")
                && stderr(&output).lines().count() == 1,
            "{output:?}"
        );
        let wrong = std::fs::read_to_string(&cli.manifest)
            .expect("written")
            .replace("not-secret", "wrong-password");
        std::fs::write(&cli.manifest, wrong).expect("written");
        let output = cli.run("dead-letters list");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(
            stderr(&output).starts_with("error: AuthenticationFailed: ")
                && !stderr(&output).contains("wrong-password"),
            "{output:?}"
        );
    }
}
