//! Creates topics, which the relay never does.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Context;
use clap::Args;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};

#[derive(Args)]
pub(crate) struct Topics {
    /// Bootstrap servers, without TLS.
    #[arg(long)]
    kafka: String,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Removes the topics instead.
    #[arg(long)]
    remove: bool,
    /// Files of OutboxRelays.
    manifests: Vec<PathBuf>,
}

/// Creates or removes the topics.
pub(crate) async fn run(arguments: Topics) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &arguments.kafka)
        .create()?;
    // Services can share a topic.
    let mut names = BTreeSet::new();
    for manifest in &arguments.manifests {
        names.extend(
            super::topic_settings(manifest)?
                .topics
                .into_iter()
                .map(|topic| topic.name),
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new();
    let (results, accepted) = if arguments.remove {
        (
            admin.delete_topics(&names, &options).await?,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )
    } else {
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| NewTopic::new(name, arguments.partitions, TopicReplication::Fixed(-1)))
            .collect();
        (
            admin.create_topics(&topics, &options).await?,
            RDKafkaErrorCode::TopicAlreadyExists,
        )
    };
    for result in results {
        match result {
            Err((topic, code)) if code != accepted => {
                return Err(code).with_context(|| format!("topic {topic}"));
            }
            Ok(topic) | Err((topic, _)) => println!("   {topic}"),
        }
    }
    Ok(())
}
