//! The relay's program: exit codes, output, and the result file that the operator reads.

use std::{
    path::Path,
    process::{Command, Output},
};

use outbox_relay::{
    outbox::schema::LEVEL,
    report::{MigrationReport, ProblemClass},
};

use crate::harness::postgres::{Database, execute, value};

fn outbox_relay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outbox-relay"))
        .args(arguments)
        .output()
        .expect("the program")
}

fn migrate(manifest: &Path, result: &Path) -> (Output, MigrationReport) {
    let output = outbox_relay(&[
        "migrate",
        "--manifest",
        &text(manifest),
        "--result",
        &text(result),
    ]);
    let report = std::fs::read(result).expect("a result");
    assert!(report.len() <= 3072, "{}", report.len());
    (output, serde_json::from_slice(&report).expect("JSON"))
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

on_each_server! {
    async fn a_manifest_is_migrated_and_the_result_written(database: Database) {
        let result = database.manifest("").with_file_name("result.json");
        let (output, report) = migrate(&database.manifest(""), &result);
        assert_eq!(
            (output.status.code(), shown(&output.stderr)),
            (Some(0), String::new())
        );
        let all: Vec<_> = (1..=LEVEL).map(|level| level.to_string()).collect();
        assert!(
            shown(&output.stdout)
                .starts_with(&format!("schema is at level {LEVEL}, applied {}\n", all.join(", "))),
            "{}",
            shown(&output.stdout)
        );
        assert_eq!(
            (report.problem, report.applied, report.schema_version),
            (None, (1..=LEVEL).collect(), Some(LEVEL))
        );
        let (output, report) = migrate(&database.manifest(""), &result);
        assert!(shown(&output.stdout)
            .starts_with(&format!("schema is at level {LEVEL}, nothing to apply\n")));
        assert_eq!((report.problem, report.applied), (None, vec![]));
    }
}

/// Only the manifest defines how to connect. Each of these variables would prevent the connection
/// or change the session if libpq's defaults applied.
#[tokio::test]
async fn variables_of_postgres_change_nothing() {
    let database = Database::create(15).await;
    let manifest = text(&database.manifest(""));
    let variables = [
        ("PGOPTIONS", "-c default_transaction_read_only=on"),
        ("PGHOST", "db.invalid"),
        ("PGHOSTADDR", "127.0.0.9"),
        ("PGPORT", "1"),
        ("PGUSER", "nobody"),
        ("PGPASSWORD", "wrong"),
        ("PGPASSFILE", "/nowhere"),
        ("PGDATABASE", "nowhere"),
        ("PGAPPNAME", "somebody"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERT", "/nowhere"),
        ("PGSSLKEY", "/nowhere"),
    ];
    let mut program = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
    let output = program
        .args(["migrate", "--manifest", &manifest])
        .envs(variables)
        .output()
        .expect("the program");
    assert!(output.status.success(), "{}", shown(&output.stderr));
    assert!(
        shown(&output.stdout).starts_with("schema is at level"),
        "{}",
        shown(&output.stdout)
    );
}

const POSITION: &str = "select position from outbox.sequence_state";

on_each_server! {
    async fn an_administrator_can_advance_the_sequence(database: Database) {
        let manifest = text(&database.manifest(""));
        let migrate = |more: &[&str]| {
            let output = outbox_relay(
                &[
                    &["migrate", "--resume-sequence", "--manifest", &manifest],
                    more,
                ]
                .concat(),
            );
            assert_eq!(
                (output.status.code(), shown(&output.stderr)),
                (Some(0), String::new())
            );
            shown(&output.stdout)
        };
        let mut admin = database.as_admin().await;
        assert!(migrate(&[]).contains(
            "note: the id sequence was at 0 and has been advanced; 0 \
            waiting rows got new ids\n"
        ));
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        let before: i64 = value(&mut admin, POSITION).await;
        let dry = migrate(&["--dry-run"]);
        assert!(
            dry.ends_with(
                "select was_at, moved from \"outbox\".resume_sequence(anyway => \
            true);\n"
            ),
            "{dry}"
        );
        assert_eq!(value::<i64>(&mut admin, POSITION).await, before);

        let done = migrate(&[]);
        assert!(
            done.contains(&format!(
                "was at {before} and has been advanced; 1 waiting rows"
            )),
            "{done}"
        );
        assert!(value::<i64>(&mut admin, POSITION).await > before);
        assert!(shown(&outbox_relay(&["migrate", "--help"]).stdout).contains("--resume-sequence"));
    }
}

on_each_server! {
    async fn a_dry_run_prints_sql_and_changes_nothing(database: Database) {
        let output = outbox_relay(&[
            "migrate",
            "--dry-run",
            "--manifest",
            &text(&database.manifest("")),
        ]);
        assert_eq!(
            (output.status.code(), shown(&output.stderr)),
            (Some(0), String::new())
        );
        let sql = shown(&output.stdout);
        assert!(
            sql.contains("\nbegin isolation level read committed;\n")
                && sql.contains("create table event")
                && sql.ends_with("commit;\n"),
            "{sql}"
        );
        let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
        assert_eq!(
            value::<i64>(&mut database.as_admin().await, schemas).await,
            0
        );
    }
}

on_each_server! {
    async fn a_failure_is_one_line_an_exit_code_and_a_result(database: Database) {
        let manifest = database.manifest("");
        let wrong = std::fs::read_to_string(&manifest)
            .expect("written")
            .replace("not-secret", "wrong-password");
        std::fs::write(&manifest, wrong).expect("written");
        let (output, report) = migrate(&manifest, &manifest.with_file_name("result.json"));
        assert_eq!(
            (output.status.code(), shown(&output.stdout)),
            (Some(1), String::new())
        );
        let line = shown(&output.stderr);
        assert!(
            line.starts_with("error: AuthenticationFailed: ") && line.lines().count() == 1,
            "{line}"
        );
        assert!(!line.contains("wrong-password"), "{line}");
        assert_eq!(
            report.problem.expect("a problem").class,
            ProblemClass::AuthenticationFailed
        );
    }
}

#[test]
fn unreadable_settings_are_written_as_a_result() {
    let folder = std::env::temp_dir().join(format!("it_{}_settings", std::process::id()));
    std::fs::create_dir_all(&folder).expect("created");
    let (settings, result) = (folder.join("settings.yaml"), folder.join("result.json"));
    std::fs::write(&settings, "owner: nobody").expect("written");
    let arguments = [
        "migrate",
        "--settings",
        &text(&settings),
        "--secrets",
        &text(&folder),
        "--result",
        &text(&result),
    ];
    assert_eq!(outbox_relay(&arguments).status.code(), Some(1));
    let report: MigrationReport =
        serde_json::from_slice(&std::fs::read(&result).expect("a result")).expect("JSON");
    let problem = report.problem.expect("a problem");
    assert_eq!(problem.class, ProblemClass::InvalidSettings);
    assert!(
        problem.message.contains("let the operator write them")
            && problem.message.contains(": owner: is a text, must be"),
        "{}",
        problem.message
    );
    assert!(!problem.message.contains("nobody"), "{}", problem.message);
    std::fs::remove_dir_all(folder).ok();
}

#[test]
fn a_wrong_call_shows_the_usage() {
    let both = [
        "migrate",
        "--settings",
        "a",
        "--secrets",
        "b",
        "--manifest",
        "c",
    ];
    for arguments in [
        &["migrate"][..],
        &["run"],
        &["migrate", "--settings", "a"],
        &both,
    ] {
        let output = outbox_relay(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            shown(&output.stderr).contains("Usage: outbox-relay"),
            "{}",
            shown(&output.stderr)
        );
    }
    assert!(shown(&outbox_relay(&["--version"]).stdout).starts_with("outbox-relay 0.1.0"));
}
