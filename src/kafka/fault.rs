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
    /// Nobody's: thrown out together with the producer, or with a batch in which the broker blames
    /// another record.
    Purged,
}

/// What an error that is no record's says of the cluster, if anything. librdkafka's `reason` only
/// tells broken TLS from a broken connection: a refused client certificate, and a broker that
/// speaks no TLS, have the same code as a broker that went away (measured with 2.12.1).
pub(super) fn trouble_of(code: Code, reason: &str) -> Option<ProblemClass> {
    let broken_tls = reason.contains("SSL handshake failed")
        || (reason.contains("SSL routines") && !reason.contains("unexpected eof"));
    match fault_of(code) {
        Fault::Cluster(ProblemClass::KafkaUnreachable) if broken_tls => {
            Some(ProblemClass::KafkaTlsFailed)
        }
        Fault::Cluster(class) => Some(class),
        _ => None,
    }
}

/// Classifies an error code of librdkafka or of a broker.
#[must_use]
pub fn fault_of(code: Code) -> Fault {
    use ProblemClass as Class;
    match code {
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::InvalidDifferentRecord => Fault::Purged,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::BrokerDestroy => Fault::Topic(Class::TopicMissing),
        Code::TopicAuthorizationFailed => Fault::Topic(Class::TopicNotAuthorized),
        Code::InvalidTopic | Code::PolicyViolation => Fault::Topic(Class::KafkaError),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            Fault::Record(Class::RecordTooLarge)
        }
        Code::InvalidMessage
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidArgument => Fault::Record(Class::RecordRejected),
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => {
            Fault::Cluster(Class::KafkaAuthenticationFailed)
        }
        Code::SSL => Fault::Cluster(Class::KafkaTlsFailed),
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::NetworkException => Fault::Cluster(Class::KafkaUnreachable),
        _ => Fault::Cluster(Class::KafkaError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: &str, class: ProblemClass) {
        assert_eq!(
            trouble_of(Code::BrokerTransportFailure, reason),
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
        let refused = trouble_of(
            Code::Authentication,
            "sasl_ssl://b:9093: SASL authentication error",
        );
        assert_eq!(refused, Some(ProblemClass::KafkaAuthenticationFailed));
    }
}
