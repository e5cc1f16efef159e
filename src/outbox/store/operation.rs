//! Names of the operations on the database, for messages of errors. Pure.

use std::fmt;

/// What was being done when a statement failed. The text completes "failed to ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Register,
    BeginRenewal,
    RenewLease,
    WriteWatermarks,
    CommitRenewal,
    ReleaseLanes,
    SurveyLanes,
    ClaimLanes,
    Unregister,
    FetchRows,
    FetchRowsByIds,
    ScanGaps,
    CountBacklog,
    ReadTableWide,
    ReadSequence,
    BeginResume,
    ResumeSequence,
    CommitResume,
    SettleRows,
    DrawTick,
    ReadParked,
    ParkKey,
    WriteDeadLetter,
    ReadDeadLetters,
    RequeueDeadLetters,
    DiscardDeadLetters,
    Park,
    Unpark,
    SkipRow,
    ReadRelays,
    CountWaiting,
    CountAttention,
    ReleaseOwner,
}

impl Operation {
    const fn text(self) -> &'static str {
        match self {
            Self::Register => "register this relay",
            Self::BeginRenewal => "begin a renewal",
            Self::RenewLease => "renew the lease",
            Self::WriteWatermarks => "write marks",
            Self::CommitRenewal => "commit a renewal",
            Self::ReleaseLanes => "release lanes",
            Self::SurveyLanes => "survey the lanes",
            Self::ClaimLanes => "claim lanes",
            Self::Unregister => "unregister this relay",
            Self::FetchRows => "fetch rows",
            Self::FetchRowsByIds => "fetch rows by name",
            Self::ScanGaps => "sweep below the marks",
            Self::CountBacklog => "count the backlog",
            Self::ReadTableWide => "read the numbers of the table",
            Self::ReadSequence => "look at the sequence of ids",
            Self::BeginResume => "begin to move the sequence of ids on",
            Self::ResumeSequence => "move the sequence of ids on",
            Self::CommitResume => "commit the move of the sequence of ids",
            Self::SettleRows => "settle rows",
            Self::DrawTick => "draw a tick",
            Self::ReadParked => "read what is parked",
            Self::ParkKey => "park a key",
            Self::WriteDeadLetter => "bury a row",
            Self::ReadDeadLetters => "read the dead letters",
            Self::RequeueDeadLetters => "requeue dead letters",
            Self::DiscardDeadLetters => "discard dead letters",
            Self::Park => "park it",
            Self::Unpark => "let it flow again",
            Self::SkipRow => "skip a row",
            Self::ReadRelays => "read the relays",
            Self::CountWaiting => "count the rows that wait",
            Self::CountAttention => "count what was put aside",
            Self::ReleaseOwner => "release the schema",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
