//! Error code of librdkafka or of a broker -> what the relay does about it. One match decides.
//! Pure.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::report::ProblemClass;

/// Why a record was not delivered. The variant decides what follows; the class is what a person
/// reads in the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryError {
    /// The whole cluster fails: it is unreachable, or refuses the login. Set by [`classify`] for
    /// all codes that blame neither a topic nor a record, and by [`Producer::send`] if
    /// librdkafka's queue is full. No record is at fault: rows stay in flight and are sent again,
    /// and the circuit breaker watches the missing acknowledgements.
    ///
    /// [`Producer::send`]: crate::kafka::Producer::send
    Cluster(ProblemClass),
    /// One topic fails: it is missing, not authorized, was deleted and created again, or its
    /// brokers reject the time of a record. Set by [`classify`]. The topic is paused for a while
    /// and then tried again; other topics continue.
    Topic(ProblemClass),
    /// The record itself is rejected, or the batch that it is part of. Set by [`classify`], and by
    /// the relay for headers that no record can carry. Its rows become candidates: each is probed
    /// alone until the rejected one is found and parked or dead-lettered.
    Record(ProblemClass),
    /// The record was not written, through no fault of its own: it was purged together with its
    /// producer, or belonged to a batch in which the broker rejects another record. Set by
    /// [`classify`]. The row is sent again.
    Purged,
}

impl DeliveryError {
    /// Class of the problem if the whole cluster fails; `None` if it does not.
    pub(super) fn cluster_class(self) -> Option<ProblemClass> {
        match self {
            Self::Cluster(class) => Some(class),
            _ => None,
        }
    }
}

/// Problem of the cluster that an error without a record indicates; `None` if it indicates none.
///
/// `reason` is librdkafka's text. It is only used to distinguish a TLS failure from a lost
/// connection: a refused client certificate, and a broker that does not speak TLS, have the same
/// code as an unreachable broker (measured with librdkafka 2.12.1).
pub(super) fn cluster_problem(code: Code, reason: &str) -> Option<ProblemClass> {
    let class = classify(code).cluster_class()?;
    if class == ProblemClass::KafkaUnreachable && is_tls_failure(reason) {
        return Some(ProblemClass::KafkaTlsFailed);
    }
    Some(class)
}

/// Whether librdkafka's text is about TLS itself, and not about a connection that ended.
fn is_tls_failure(reason: &str) -> bool {
    reason.contains("SSL handshake failed")
        || (reason.contains("SSL routines") && !reason.contains("unexpected eof"))
}

/// Classifies an error code of librdkafka or of a broker. Unknown codes blame the cluster, so that
/// no row is parked because of them.
#[must_use]
pub fn classify(code: Code) -> DeliveryError {
    use ProblemClass as Class;
    match code {
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::InvalidDifferentRecord => DeliveryError::Purged,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::BrokerDestroy => DeliveryError::Topic(Class::TopicMissing),
        Code::TopicAuthorizationFailed => DeliveryError::Topic(Class::TopicNotAuthorized),
        Code::InvalidTopic | Code::PolicyViolation => DeliveryError::Topic(Class::KafkaError),
        // The relay chooses the timestamp, so no row is at fault.
        Code::InvalidTimestamp => DeliveryError::Topic(Class::ClockSkew),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            DeliveryError::Record(Class::RecordTooLarge)
        }
        Code::InvalidMessage | Code::InvalidRecord | Code::InvalidArgument => {
            DeliveryError::Record(Class::RecordRejected)
        }
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => {
            DeliveryError::Cluster(Class::KafkaAuthenticationFailed)
        }
        Code::SSL => DeliveryError::Cluster(Class::KafkaTlsFailed),
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::NetworkException => DeliveryError::Cluster(Class::KafkaUnreachable),
        _ => DeliveryError::Cluster(Class::KafkaError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: &str, class: ProblemClass) {
        assert_eq!(
            cluster_problem(Code::BrokerTransportFailure, reason),
            Some(class),
            "{reason}"
        );
    }

    #[test]
    fn a_connection_that_ends_is_told_from_tls_that_fails() {
        for reason in [
            "ssl://b:9093/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad \
             certificate: SSL alert number 42",
            "ssl://b:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed \
             (after 2ms in state SSL_HANDSHAKE)",
            "ssl://b:9093/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by \
             peer: connecting to a PLAINTEXT broker listener?",
        ] {
            check(reason, ProblemClass::KafkaTlsFailed);
        }
        for reason in [
            "ssl://b:9093/bootstrap: Connect to ipv4#127.0.0.1:9093 failed: Connection refused \
             (after 0ms in state CONNECT)",
            "ssl://b:9093/1: Disconnected: SSL connection closed by peer (after 20ms in state UP)",
            "ssl://b:9093/1: Receive failed: error:0A000126:SSL routines::unexpected eof while \
             reading",
        ] {
            check(reason, ProblemClass::KafkaUnreachable);
        }
    }

    #[test]
    fn a_refused_login_is_told_by_its_code() {
        let refused = cluster_problem(
            Code::Authentication,
            "sasl_ssl://b:9093: SASL authentication error",
        );
        assert_eq!(refused, Some(ProblemClass::KafkaAuthenticationFailed));
    }
}
