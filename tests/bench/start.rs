//! Starts each contender on a table and a topic.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use outbox_relay::settings::RELAY_ENVIRONMENT;

use super::{Cli, contender::Contender, process::Started, table::Table};

/// Settings of Kafka Connect, tuned for speed with 1 GiB as its documentation and its users advise.
const CONNECT: &str = "\
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.flush.interval.ms=1000
plugin.discovery=only_scan
producer.acks=all
producer.linger.ms=5
producer.batch.size=1048576
producer.buffer.memory=134217728
producer.max.request.size=4194304
producer.compression.type=lz4
producer.max.in.flight.requests.per.connection=5
";
const DEBEZIUM: &str = "\
name=dbz
connector.class=io.debezium.connector.postgresql.PostgresConnector
tasks.max=1
plugin.name=pgoutput
publication.name=dbz
publication.autocreate.mode=disabled
snapshot.mode=no_data
topic.prefix=dbz
table.include.list=public.outboxevent
tombstones.on.delete=false
poll.interval.ms=5
max.batch.size=20480
max.queue.size=81920
transforms=outbox
transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
";

/// Starts a contender, and waits until it is ready to publish rows.
pub(crate) async fn start(
    cli: &Cli,
    contender: Contender,
    table: &Table,
) -> anyhow::Result<Started> {
    let folder = std::env::temp_dir().join(&table.name);
    std::fs::create_dir_all(&folder)?;
    let log = folder.join(contender.name());
    match contender {
        Contender::Relay => {
            let started = Started::new(&mut relay(cli, table)?, &log)?;
            table.wait_until_lanes_are_owned().await?;
            Ok(started)
        }
        Contender::BareLoop => Started::new(&mut bare_loop(table)?, &log),
        Contender::Debezium => {
            let mut started = Started::new(&mut debezium(cli, table, &folder)?, &log)?;
            started.wait_for_output("Starting streaming").await?;
            Ok(started)
        }
        Contender::Poller => {
            let mut started = Started::new(&mut poller(cli, table), &log)?;
            started.wait_for_output("started").await?;
            Ok(started)
        }
    }
}

fn relay(cli: &Cli, table: &Table) -> anyhow::Result<Command> {
    let mut command = Command::new(&cli.relay);
    // The operator starts it with this environment.
    command.env(RELAY_ENVIRONMENT.0, RELAY_ENVIRONMENT.1);
    command
        .args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "warn",
            "--manifest",
        ])
        .arg(manifest(table)?);
    Ok(command)
}

fn bare_loop(table: &Table) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(RELAY_ENVIRONMENT.0, RELAY_ENVIRONMENT.1).args([
        "bare-loop",
        &table.url,
        &table.kafka,
    ]);
    Ok(command)
}

/// Kafka Connect with the files of its worker and its connector in a folder.
fn debezium(cli: &Cli, table: &Table, folder: &Path) -> anyhow::Result<Command> {
    let (worker, connector) = (
        folder.join("worker.properties"),
        folder.join("connector.properties"),
    );
    let worker_text = format!(
        "{CONNECT}bootstrap.servers={}\noffset.storage.file.filename={}\n\
         listeners=http://127.0.0.1:18083\n",
        table.kafka,
        folder.join("offsets").display()
    );
    std::fs::write(&worker, worker_text)?;
    std::fs::write(
        &connector,
        format!("{DEBEZIUM}{}", debezium_database(table)?),
    )?;
    let mut command = Command::new("java");
    command.args(["-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:-UsePerfData"]);
    command.arg(format!(
        "-Dlog4j2.configurationFile={}",
        cli.peers.join("log4j2.properties").display()
    ));
    command
        .arg("-cp")
        .arg(cli.connect.join("*"))
        .arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .arg(worker)
        .arg(connector);
    Ok(command)
}

fn poller(cli: &Cli, table: &Table) -> Command {
    let mut command = Command::new(&cli.python);
    command
        .arg(cli.peers.join("poller.py"))
        .args([&table.url, &table.kafka]);
    command
}

fn debezium_database(table: &Table) -> anyhow::Result<String> {
    let without_scheme = table
        .url
        .strip_prefix("postgres://")
        .context("a URL of PostgreSQL")?;
    let (login, address_and_name) = without_scheme
        .split_once('@')
        .context("a URL with a user")?;
    let (user, password) = login.split_once(':').context("a URL with a password")?;
    let (address, name) = address_and_name
        .split_once('/')
        .context("a URL with a database")?;
    let (host, port) = address.split_once(':').context("a URL with a port")?;
    Ok(format!(
        "database.hostname={host}\ndatabase.port={port}\ndatabase.user={user}\n\
         database.password={password}\ndatabase.dbname={name}\n\
         database.sslmode=disable\n\
         slot.name={name}\ntransforms.outbox.route.topic.replacement=${{routedByValue}}\n"
    ))
}

/// Writes a manifest for the relay. Returns its file.
pub(crate) fn manifest(table: &Table) -> anyhow::Result<PathBuf> {
    let file = std::env::temp_dir().join(format!("{}.yaml", table.name));
    let topics: String = table
        .topics
        .names
        .iter()
        .map(|name| format!("  - name: {name}\n"))
        .collect();
    let text = format!(
        "apiVersion: outboxrelay.dev/v1alpha1\nkind: OutboxRelay\n\
         metadata: {{ name: bench, namespace: bench }}\nspec:\n  database:\n    \
         urlSecretRef: {{ name: db, key: uri }}\n    tls: {{ mode: disable }}\n  kafka:\n    \
         bootstrapServers: ['{}']\n    tls: {{ mode: disable }}\n  topics:\n{topics}\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: db, namespace: bench }}\n\
         stringData: {{ uri: '{}' }}\n",
        table.kafka, table.url
    );
    std::fs::write(&file, text)?;
    Ok(file)
}
