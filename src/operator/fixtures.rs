//! A valid OutboxRelay for unit tests, to break in one place.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::OutboxRelay,
    operator::{
        installation::Installation,
        reconcile::{
            build::{Desired, build},
            validate::{ValidatedRelay, validate_relay},
        },
    },
};

pub(crate) const NOW: &str = "2026-01-01T12:00:00Z";

pub(crate) fn now() -> Timestamp {
    at(0)
}

/// `seconds` after [`NOW`].
pub(crate) fn at(seconds: i64) -> Timestamp {
    let now: Timestamp = NOW.parse().expect("a timestamp");
    Timestamp::from_second(now.as_second() + seconds).expect("near now")
}

pub(crate) fn relay() -> OutboxRelay {
    serde_yaml::from_str(include_str!("fixtures/relay.yaml")).expect("the fixture is a manifest")
}

pub(crate) fn relay_with(change: impl FnOnce(&mut OutboxRelay)) -> OutboxRelay {
    let mut relay = relay();
    change(&mut relay);
    relay
}

pub(crate) fn installation() -> Installation {
    Installation {
        relay_image: "relay:1".to_owned(),
        allowed_images: vec!["registry.test/*".to_owned()],
        cluster_name: "cluster".to_owned(),
        upgrades_max: 5,
        namespace: Some("outbox-system".to_owned()),
        monitoring_namespace: Some("monitoring".to_owned()),
        relays_monitored: false,
    }
}

/// The fixture, changed and still valid.
pub(crate) fn validated_with(change: impl FnOnce(&mut OutboxRelay)) -> ValidatedRelay {
    validate_relay(&relay_with(change), &installation()).expect("a valid change")
}

pub(crate) fn validated() -> ValidatedRelay {
    validate_relay(&relay(), &installation()).expect("the fixture is valid")
}

/// The fixture with all candidates for its children.
pub(crate) fn desired() -> Desired {
    build(validated())
}

/// The fixture, changed and still valid, with all candidates for its children.
pub(crate) fn desired_with(change: impl FnOnce(&mut OutboxRelay)) -> Desired {
    build(validated_with(change))
}
