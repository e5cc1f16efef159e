//! Which declared topic a row goes to. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::{
    outbox::{FetchFilter, OutboxRow, RowText},
    relay::core::ids::TopicIndex,
    settings::{OnPoison, TopicSettings},
};

/// Where the record of a row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// To this declared topic.
    Topic(TopicIndex),
    /// Nowhere: the topic of the row is not declared, or no declared topic lists its types.
    Undeclared,
}

/// The declared topics and what is routed to them.
#[derive(Clone, Debug)]
pub struct Routes {
    topics: Vec<TopicSettings>,
    by_name: HashMap<String, TopicIndex>,
    by_event_type: HashMap<String, TopicIndex>,
    by_aggregate_type: HashMap<String, TopicIndex>,
}

impl Routes {
    /// The routes of the declared topics.
    #[must_use]
    pub fn new(topics: &[TopicSettings]) -> Self {
        Self {
            topics: topics.to_vec(),
            by_name: index_by(topics, |topic| std::slice::from_ref(&topic.name)),
            by_event_type: index_by(topics, |topic| &topic.event_types),
            by_aggregate_type: index_by(topics, |topic| &topic.aggregate_types),
        }
    }

    /// The declared topic of this name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<TopicIndex> {
        self.by_name.get(name).copied()
    }

    /// Indexes of all declared topics.
    pub fn indexes(&self) -> impl Iterator<Item = TopicIndex> + use<> {
        (0..self.topics.len()).map(TopicIndex::new)
    }

    /// Number of declared topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Name of a declared topic.
    #[must_use]
    pub fn name(&self, topic: TopicIndex) -> &str {
        &self.topics[topic.index()].name
    }

    /// What becomes of a row of this topic that Kafka refuses for good.
    #[must_use]
    pub fn on_poison(&self, topic: TopicIndex) -> OnPoison {
        self.topics[topic.index()].on_poison
    }

    /// The topic that a row has, else the one that lists its event type, else its aggregate type.
    #[must_use]
    pub fn destination(&self, row: &OutboxRow) -> Destination {
        self.topic_of(row)
            .map_or(Destination::Undeclared, |topic| Destination::Topic(*topic))
    }

    fn topic_of(&self, row: &OutboxRow) -> Option<&TopicIndex> {
        match row.topic() {
            Some(topic) => self.by_name.get(topic),
            None => self.topic_of_types(row.text()),
        }
    }

    /// The topic that lists the event type of a row, else its aggregate type.
    fn topic_of_types(&self, types: RowText<'_>) -> Option<&TopicIndex> {
        self.by_event_type
            .get(types.event_type)
            .or_else(|| self.by_aggregate_type.get(types.aggregate_type))
    }

    /// The filter of a fetch that is restricted to topics for which `is_active` holds.
    #[must_use]
    pub fn filter(&self, is_active: impl Fn(TopicIndex) -> bool) -> FetchFilter {
        let active = self.indexes().filter(|topic| is_active(*topic));
        FetchFilter {
            topics: active.map(|topic| self.name(topic).to_owned()).collect(),
            by_event_type: self.names_by(&self.by_event_type),
            by_aggregate_type: self.names_by(&self.by_aggregate_type),
            paused_keys: Vec::new(),
            declared: Some(self.topics.iter().map(|topic| topic.name.clone()).collect()),
        }
    }

    /// Types with the names of their topics.
    fn names_by(&self, types: &HashMap<String, TopicIndex>) -> BTreeMap<String, String> {
        let name = |topic: &TopicIndex| self.name(*topic).to_owned();
        types
            .iter()
            .map(|(of_type, topic)| (of_type.clone(), name(topic)))
            .collect()
    }
}

/// Indexes of topics, by the names that each of them has.
fn index_by(
    topics: &[TopicSettings],
    names: impl Fn(&TopicSettings) -> &[String],
) -> HashMap<String, TopicIndex> {
    let mut index = HashMap::new();
    for (at, topic) in topics.iter().enumerate() {
        for name in names(topic) {
            index.insert(name.clone(), TopicIndex::new(at));
        }
    }
    index
}

/// Routes never change: states of a model differ in other things.
#[cfg(test)]
impl std::hash::Hash for Routes {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}
