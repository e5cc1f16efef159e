//! Which client of the main producer has a partition, and when that may change. Pure.
//!
//! Brokers keep a client's records in order, and ignore what it sends twice. Nothing keeps the
//! records of two clients apart. So a partition changes its client only when nothing of it is out
//! and its last record was acknowledged: then the old client has nothing left that could be written
//! late, because a broker ignores a late copy of a record that it has. After a failure or a purge
//! it keeps its client, until a record is acknowledged or the whole producer is replaced.

use crate::kafka::ClientId;

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Acknowledged,
    Failed,
}

/// The client of one partition. Its fields are private, so that a partition changes its client by
/// [`Self::choose`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct PartitionClient {
    /// `None` before the first record.
    client: Option<ClientId>,
    /// Records that the client has and that have not ended.
    out: u32,
    /// Whether the last record that ended was not acknowledged.
    has_failed: bool,
}

/// Which client the next record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The client that had the partition's last record.
    Same(ClientId),
    /// A client that has sent nothing to the partition, at least not since another one did.
    Other(ClientId),
}

impl PartitionClient {
    /// The client for the next record: `wanted`, if the partition may change its client now.
    pub(crate) fn choose(&mut self, wanted: ClientId) -> Choice {
        match self.client {
            Some(client) if client == wanted || !self.is_settled() => Choice::Same(client),
            _ => {
                self.client = Some(wanted);
                Choice::Other(wanted)
            }
        }
    }

    /// Whether no record may be sent, so that the partition can change to `wanted` once those that
    /// are out are acknowledged. A busy partition would never change otherwise. After a failure it
    /// must send, since only an acknowledgement lets it change.
    pub(crate) fn waits_for(&self, wanted: ClientId) -> bool {
        self.client.is_some_and(|client| client != wanted) && self.out > 0 && !self.has_failed
    }

    /// Records that a record goes to the chosen client.
    pub(crate) fn on_sent(&mut self) {
        self.out += 1;
    }

    /// Records how a record ended.
    pub(crate) fn on_ended(&mut self, delivery: Delivery) {
        self.out = self.out.saturating_sub(1);
        self.has_failed = delivery == Delivery::Failed;
    }

    /// Whether a client has sent a record to the partition.
    pub(crate) fn is_used(&self) -> bool {
        self.client.is_some()
    }

    /// Whether this client may still be needed for the partition.
    pub(crate) fn needs(&self, client: ClientId) -> bool {
        self.client == Some(client) && !self.is_settled()
    }

    /// Whether nothing is out, and the last record was acknowledged.
    fn is_settled(&self) -> bool {
        self.out == 0 && !self.has_failed
    }
}

#[cfg(test)]
mod tests {
    use Event::{Acknowledged, Failed, Sent};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Sent,
        Acknowledged,
        Failed,
    }

    const OTHER: ClientId = ClientId::FIRST.next();

    /// A partition of the first client after these events.
    fn after(events: &[Event]) -> PartitionClient {
        let mut partition = PartitionClient::default();
        assert_eq!(
            partition.choose(ClientId::FIRST),
            Choice::Other(ClientId::FIRST)
        );
        for event in events {
            match event {
                Sent => partition.on_sent(),
                Acknowledged => partition.on_ended(Delivery::Acknowledged),
                Failed => partition.on_ended(Delivery::Failed),
            }
        }
        partition
    }

    #[test]
    fn a_partition_changes_its_client_only_when_nothing_is_out_and_the_last_was_acknowledged() {
        for (events, may_change) in [
            (&[][..], true),
            (&[Sent], false),
            (&[Sent, Acknowledged], true),
            (&[Sent, Sent, Acknowledged], false),
            (&[Sent, Failed], false),
            (&[Sent, Sent, Acknowledged, Failed], false),
            (&[Sent, Sent, Failed, Failed], false),
            (&[Sent, Failed, Sent], false),
            (&[Sent, Failed, Sent, Acknowledged], true),
        ] {
            let mut partition = after(events);
            assert_eq!(partition.needs(ClientId::FIRST), !may_change, "{events:?}");
            assert!(!partition.needs(OTHER), "{events:?}");
            let expected = if may_change {
                Choice::Other(OTHER)
            } else {
                Choice::Same(ClientId::FIRST)
            };
            assert_eq!(partition.choose(OTHER), expected, "{events:?}");
        }
    }

    #[test]
    fn a_partition_keeps_the_client_that_it_is_to_have() {
        assert_eq!(
            after(&[Sent, Acknowledged]).choose(ClientId::FIRST),
            Choice::Same(ClientId::FIRST)
        );
    }
}
