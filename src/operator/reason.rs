//! The closed set of reasons that conditions and events carry, each explained in docs/reasons.md.
//! Pure.

use crate::report::{Problem, ProblemClass};

macro_rules! reasons {
    ($($name:ident),+ $(,)?) => {
        /// Why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($name,)+
            /// A relay or a migration reported it.
            Problem(ProblemClass),
        }

        impl Reason {
            const OWN: &'static [Self] = &[$(Self::$name),+];

            fn own_name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    Self::Problem(_) => None,
                }
            }
        }
    };
}

reasons! {
    AllRelaysAvailable,
    ApiRequestFailed,
    AtMaximum,
    BacklogHigh,
    BoundsChanged,
    BreakerOpen,
    ChildRefused,
    FormerChildren,
    ImageNotAllowed,
    InvalidSpec,
    LoadLow,
    MigrationFailed,
    MigrationNote,
    MigrationOff,
    MigrationRunning,
    MigrationSucceeded,
    NameConflict,
    NoRelayAvailable,
    NoReports,
    NotChecked,
    NotPaused,
    NotStalled,
    NotUnderstood,
    OldestHigh,
    Paused,
    PlaintextTraffic,
    PodMonitorUnavailable,
    PodsPending,
    PodsRefused,
    Publishing,
    Ready,
    ReplicasReset,
    ReportsComplete,
    ReportsIncomplete,
    RollingOut,
    ScaledToZero,
    ScalingOff,
    SecretsRead,
    ServerUnverified,
    Settled,
    SomeRelaysAvailable,
    Stabilizing,
    Suspended,
    ThroughputFlat,
    UpgradeQueued,
    UpgradesStopped,
    WaitingForRelays,
    WaitingForSchema,
    WithinTargets,
}

impl Reason {
    /// Returns the reason as the API has it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Problem(class) => class.to_string(),
            own => own.own_name().unwrap_or_default().to_owned(),
        }
    }

    /// Returns the reason with this name; nothing if this version does not know it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::parse_own(name).or_else(|| Self::parse_problem(name))
    }

    fn parse_own(name: &str) -> Option<Self> {
        let mut own = Self::OWN.iter().copied();
        own.find(|reason| reason.own_name() == Some(name))
    }

    fn parse_problem(name: &str) -> Option<Self> {
        let Ok(class) = name.parse::<ProblemClass>();
        // An unknown name is parsed as `Other`.
        let is_known = class.to_string() == name;
        is_known.then_some(Self::Problem(class))
    }

    /// Returns whether a reconciliation that set this reason on `Ready` left something undone.
    pub(crate) fn leaves_undone(self) -> bool {
        matches!(
            self,
            Self::ApiRequestFailed
                | Self::ChildRefused
                | Self::FormerChildren
                | Self::ImageNotAllowed
                | Self::InvalidSpec
                | Self::NameConflict
                | Self::NotUnderstood
        )
    }

    /// Returns whether the state passes automatically, so that it is not worth an Event.
    pub(crate) fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::MigrationRunning
                | Self::NotStalled
                | Self::Paused
                | Self::ReportsIncomplete
                | Self::RollingOut
                | Self::ScaledToZero
                | Self::ScalingOff
                | Self::Suspended
                | Self::WaitingForSchema
        )
    }
}

/// Returns whether a problem keeps rows from being published. Other problems are advice, or end
/// automatically.
pub(crate) fn stops_publishing(problem: &Problem) -> bool {
    use ProblemClass::{
        KafkaThrottled, Other, PartitionsAdded, TableChanged, TopicUnderReplicated,
    };
    !problem.last_good_used
        && !problem.advice
        && !matches!(
            problem.class,
            TopicUnderReplicated | PartitionsAdded | KafkaThrottled | TableChanged | Other
        )
}

/// Returns whether a secret is missing, or a new one cannot be used.
pub(crate) fn is_about_secrets(problem: &Problem) -> bool {
    problem.last_good_used
        || matches!(
            problem.class,
            ProblemClass::SecretMissing | ProblemClass::SecretInvalid
        )
}

/// Returns whether a problem is one of the database schema.
pub(crate) fn is_about_the_schema(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::SchemaNotReady
            | ProblemClass::NewerSchema
            | ProblemClass::SchemaClaimedByOther
    )
}

/// Returns whether only a person can end a problem: retries continue, but `Stalled` shows that they
/// are not expected to help.
pub(crate) fn needs_a_person(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::NewerSchema | ProblemClass::SchemaClaimedByOther
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::{Deserializer, de, forward_to_deserialize_any};

    use super::*;

    /// Asks serde for the names of an enum's variants, so that the list cannot fall behind the
    /// enum.
    struct VariantNames<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for VariantNames<'_> {
        type Error = de::value::Error;

        fn deserialize_enum<V: de::Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(de::Error::custom("only the names were wanted"))
        }

        fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("no enum"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }

    fn problem_classes() -> BTreeSet<String> {
        let mut names: &[&str] = &[];
        let _ = <ProblemClass as serde::Deserialize>::deserialize(VariantNames(&mut names));
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_reason_is_documented_and_nothing_else_is() {
        let page = include_str!("../../docs/reasons.md");
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
        let mut known = problem_classes();
        assert!(known.len() > 20, "{known:?}");
        known.extend(Reason::OWN.iter().map(|reason| reason.name()));
        assert_eq!(documented, known);
    }

    #[test]
    fn every_name_is_parsed_and_no_other_is() {
        for reason in Reason::OWN {
            assert_eq!(Reason::parse(&reason.name()), Some(*reason));
        }
        for class in problem_classes() {
            let parsed = Reason::parse(&class).expect("a class that exists");
            assert_eq!(parsed.name(), class);
        }
        assert_eq!(Reason::parse("OfANewerVersion"), None);
    }

    #[test]
    fn contract_of_reasons_and_problem_classes() {
        let lines = |names: BTreeSet<String>| {
            names
                .into_iter()
                .map(|name| name + "\n")
                .collect::<String>()
        };
        crate::golden::compare(
            "reasons.txt",
            &lines(Reason::OWN.iter().map(|reason| reason.name()).collect()),
        );
        crate::golden::compare("problem-classes.txt", &lines(problem_classes()));
    }

    #[test]
    fn a_reported_problem_keeps_its_name() {
        assert_eq!(
            Reason::Problem(ProblemClass::TopicMissing).name(),
            "TopicMissing"
        );
    }
}
