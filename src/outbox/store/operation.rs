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
    PurgeAdopted,
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
    FindEvent,
}

impl Operation {
    const fn text(self) -> &'static str {
        match self {
            Self::FindEvent => "find the event",
            Self::Register => "register this relay",
            Self::BeginRenewal => "begin the renewal of the lease",
            Self::RenewLease => "renew the lease",
            Self::WriteWatermarks => "write the watermarks",
            Self::CommitRenewal => "commit the renewal of the lease",
            Self::ReleaseLanes => "release lanes",
            Self::SurveyLanes => "count relays and lanes",
            Self::ClaimLanes => "claim lanes",
            Self::Unregister => "unregister this relay",
            Self::FetchRows => "fetch rows",
            Self::FetchRowsByIds => "fetch rows by id",
            Self::ScanGaps => "scan for rows below the watermarks",
            Self::PurgeAdopted => "delete old rows of adopted tables",
            Self::CountBacklog => "count the backlog",
            Self::ReadTableWide => "read statistics of the table",
            Self::ReadSequence => "read the id sequence",
            Self::BeginResume => "begin to advance the id sequence",
            Self::ResumeSequence => "advance the id sequence",
            Self::CommitResume => "commit the advance of the id sequence",
            Self::SettleRows => "settle rows",
            Self::DrawTick => "draw a transaction id",
            Self::ReadParked => "read parked topics and keys",
            Self::ParkKey => "park a key",
            Self::WriteDeadLetter => "move a row to the dead letters",
            Self::ReadDeadLetters => "read the dead letters",
            Self::RequeueDeadLetters => "requeue dead letters",
            Self::DiscardDeadLetters => "discard dead letters",
            Self::Park => "park a topic or key",
            Self::Unpark => "unpark a topic or key",
            Self::SkipRow => "skip a row",
            Self::ReadRelays => "read the relays",
            Self::CountWaiting => "count the waiting rows",
            Self::CountAttention => "count parked topics, parked keys and dead letters",
            Self::ReleaseOwner => "release the schema",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
