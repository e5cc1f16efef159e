//! The thin edge: reads the facts that the checks judge. It changes nothing. IO.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    doctor::facts::{DatabaseFacts, Examined, Fact, SettingsFacts, TopicFacts},
    kafka::{LimitsByTopic, MetadataClient, TopicDescription, request_topic_limits},
    outbox::{
        admin::{AdminClient, Overview, Role},
        connect::Connect,
        doctor::{DoctorClient, MigrationRights},
    },
    relay::topic_metadata::problems::cluster_problem,
    report::{Problem, ProblemClass},
    secrets::Secrets,
    settings::{RelaySettings, source::SettingsSource},
};

/// Client id of this command at the brokers.
const CLIENT_ID: &str = "outbox-relay-doctor";
/// Longest wait for all answers of the brokers. Their client cannot be interrupted.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads all facts. What cannot be read becomes a problem in its place.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn gather(source: &SettingsSource) -> Examined {
    let (settings, secrets) = match source.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            return Examined {
                settings: Err(error.problem()),
                database: None,
                migration: None,
                kafka: None,
            };
        }
    };
    Examined {
        settings: Ok(settings_facts(&settings)),
        database: Some(database(&settings, &secrets).await),
        migration: Some(migration(&settings, &secrets).await),
        kafka: Some(kafka(&settings, &secrets).await),
    }
}

fn settings_facts(settings: &RelaySettings) -> SettingsFacts {
    SettingsFacts {
        schema: settings.database.schema.as_str().to_owned(),
        topics: settings.topics.len(),
        database_tls: settings.database.tls.mode,
        kafka_tls: settings.kafka.tls.mode,
        max_connections: settings.database.max_connections,
        has_own_migration_user: settings.migration.database.is_some(),
    }
}

async fn database(settings: &RelaySettings, secrets: &Secrets) -> Fact<DatabaseFacts> {
    let database = &settings.database;
    let connect = Connect::relay(database, secrets).map_err(|error| error.problem())?;
    let client = DoctorClient::open(&connect, &database.schema)
        .await
        .map_err(|error| error.problem())?;
    let server = client.server().await;
    let here_ahead_seconds = here_ahead_seconds(&client).await;
    Ok(DatabaseFacts {
        location: client.location().to_owned(),
        connect_ms: client.connect_ms(),
        here_ahead_seconds,
        product: client.unsupported_product().await,
        server,
        level: client.level(&settings.owner).await,
        drift: client.drift().await,
        lacking_rights: client.lacking_rights().await,
        overview: overview(settings, secrets).await,
    })
}

/// How far the clock here is ahead of the database's. Zero if that one cannot be read: then other
/// statements fail, too.
async fn here_ahead_seconds(client: &DoctorClient) -> f64 {
    let before_us = Timestamp::now().as_microsecond();
    let clock_us = client.clock_us().await;
    let here_us = before_us.midpoint(Timestamp::now().as_microsecond());
    let ahead_us = clock_us.map_or(0, |clock_us| here_us.saturating_sub(clock_us));
    ahead_us as f64 / 1e6
}

async fn overview(settings: &RelaySettings, secrets: &Secrets) -> Fact<Overview> {
    let client = AdminClient::open(settings, secrets, Role::Relay).await;
    let client = client.map_err(|error| error.problem())?;
    client.overview().await.map_err(|error| error.problem())
}

async fn migration(settings: &RelaySettings, secrets: &Secrets) -> Fact<MigrationRights> {
    let connect = Connect::migration(settings, secrets).map_err(|error| error.problem())?;
    let client = DoctorClient::open(&connect, &settings.database.schema)
        .await
        .map_err(|error| error.problem())?;
    let grants = &settings.migration;
    let roles = [&*grants.producers, &*grants.relays].concat();
    client.migration_rights(&roles).await
}

async fn kafka(settings: &RelaySettings, secrets: &Secrets) -> Fact<Vec<TopicFacts>> {
    let descriptions = descriptions(settings.clone(), secrets.clone()).await?;
    let names: Vec<&str> = settings.topics.iter().map(|topic| &*topic.name).collect();
    let limits = request_topic_limits(&settings.kafka, secrets, CLIENT_ID, &names).await;
    let LimitsByTopic(limits) = limits.unwrap_or_default();
    let topics = names.iter().zip(descriptions).enumerate();
    Ok(topics
        .map(|(index, (name, description))| TopicFacts {
            name: (*name).to_owned(),
            description,
            limits: limits.get(index).copied(),
        })
        .collect())
}

/// Asks for each topic, in a thread that may block.
async fn descriptions(
    settings: RelaySettings,
    secrets: Secrets,
) -> Result<Vec<TopicDescription>, Problem> {
    let servers = settings.kafka.bootstrap_servers.join(",");
    let silent = || cluster_problem(ProblemClass::KafkaUnreachable, &servers);
    let asked = tokio::task::spawn_blocking(move || describe_all(&settings, &secrets));
    let answer = tokio::time::timeout(KAFKA_TIMEOUT, asked).await;
    answer.map_err(|_| silent())?.map_err(|_| silent())?
}

/// Blocks.
fn describe_all(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<Vec<TopicDescription>, Problem> {
    let kafka = &settings.kafka;
    let client = MetadataClient::new(kafka, secrets, CLIENT_ID);
    let client = client.map_err(|error| error.problem())?;
    let servers = kafka.bootstrap_servers.join(",");
    let names = settings.topics.iter().map(|topic| &topic.name);
    let described = names.map(|name| client.describe(name));
    let described: Result<_, _> = described.collect();
    described.map_err(|class| cluster_problem(class, &servers))
}
