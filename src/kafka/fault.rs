//! What an error code means for the relay: one match decides. Pure.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::report::ProblemClass;

/// Whose fault a failed record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cluster's: no record can be blamed.
    Cluster(ProblemClass),
    /// The topic's: it is missing, forbidden, or was deleted and made anew.
    Topic(ProblemClass),
    /// The record's own.
    Record(ProblemClass),
    /// Nobody's: thrown out together with the producer, or with a batch in which the broker blames another record.
    Purged,
}

/// Classifies an error code of librdkafka or of a broker.
#[must_use]
pub fn fault_of(code: Code) -> Fault {
    use ProblemClass as Class;
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::Fatal | Code::GaplessGuarantee | Code::InvalidDifferentRecord => Fault::Purged,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::BrokerDestroy => {
            Fault::Topic(Class::TopicMissing)
        }
        Code::TopicAuthorizationFailed => Fault::Topic(Class::TopicNotAuthorized),
        Code::InvalidTopic | Code::PolicyViolation => Fault::Topic(Class::KafkaError),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => Fault::Record(Class::RecordTooLarge),
        Code::InvalidMessage | Code::InvalidTimestamp | Code::InvalidRecord | Code::InvalidArgument => Fault::Record(Class::RecordRejected),
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => {
            Fault::Cluster(Class::KafkaAuthenticationFailed)
        }
        Code::SSL => Fault::Cluster(Class::KafkaTlsFailed),
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::NetworkException => {
            Fault::Cluster(Class::KafkaUnreachable)
        }
        _ => Fault::Cluster(Class::KafkaError),
    }
}
