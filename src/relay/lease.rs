//! One turn of the lease: renew, give back, look around, claim, see what is parked. IO, in one
//! place and one order; what to do with the answers is the loop's.

use std::time::Instant;

use uuid::Uuid;

use super::lanes::{Health, LEASE_TTL, Share, share};
use crate::{
    outbox::{Grant, LaneMarksPlan, Parked, Store, StoreError},
    report::BreakerState,
};

/// What the loop knows when a turn begins.
pub(super) struct Turn {
    pub(super) instance: Uuid,
    /// Whose marks these are.
    pub(super) incarnation: Uuid,
    /// Present when a renewal is due: the marks to write, of all our lanes.
    pub(super) renew: Option<LaneMarksPlan>,
    /// Drained lanes to give back.
    pub(super) release: LaneMarksPlan,
    /// All our lanes.
    pub(super) known: Vec<i16>,
    /// Our lanes without those on their way back.
    pub(super) owned: u32,
    /// Highest id seen when the turn began.
    pub(super) seen: i64,
    pub(super) breaker: BreakerState,
    pub(super) health: Health,
    /// Take no new lanes.
    pub(super) stopping: bool,
}

/// What a turn brought.
#[expect(
    clippy::large_enum_variant,
    reason = "made once a second, and moved once"
)]
pub(super) enum Turned {
    /// The lease runs on.
    Holds {
        renewed: Option<Renewed>,
        released: LaneMarksPlan,
        granted: Vec<Grant>,
        give_back: u32,
        seen: Seen,
    },
    /// It had run out.
    Lost,
}

/// What is parked in these lanes, asked at that time.
pub(super) struct Seen {
    pub(super) parked: Parked,
    pub(super) lanes: Vec<i16>,
    pub(super) asked: Instant,
}

/// A renewal: when it was sent, its transaction, and the lanes that are still ours.
pub(super) struct Renewed {
    pub(super) sent: Instant,
    pub(super) xid: u64,
    pub(super) drawn: i64,
    pub(super) ours: Vec<u8>,
}

/// One turn. If dropped midway, lanes may have been renewed, given back or claimed: the next turn
/// finds out.
pub(super) async fn turn(store: Store, turn: Turn) -> Result<Turned, StoreError> {
    let mut renewed = None;
    if let Some(marks) = &turn.renew {
        let sent = Instant::now();
        let Some((xid, ours)) = store
            .renew(
                turn.instance,
                LEASE_TTL,
                turn.breaker,
                marks,
                turn.incarnation,
            )
            .await?
        else {
            return Ok(Turned::Lost);
        };
        renewed = Some(Renewed {
            sent,
            xid,
            drawn: turn.seen,
            ours,
        });
    }
    if !turn.release.lanes.is_empty() {
        store
            .release(turn.instance, &turn.release, turn.incarnation)
            .await?;
    }
    let known: Vec<i16> = turn
        .known
        .iter()
        .filter(|lane| !turn.release.lanes.contains(lane))
        .copied()
        .collect();
    let (mut granted, mut give_back) = (Vec::new(), 0);
    if !turn.stopping {
        match share(
            store.survey(turn.instance, &known).await?,
            turn.owned,
            turn.health,
        ) {
            Share::Keep => {}
            Share::GiveBack { lanes } => give_back = lanes,
            Share::Claim { lanes_max } => {
                granted = store.claim(turn.instance, lanes_max, &known).await?
            }
        }
    }
    let lanes: Vec<i16> = known
        .into_iter()
        .chain(granted.iter().map(|grant| i16::from(grant.lane)))
        .collect();
    let asked = Instant::now();
    let seen = Seen {
        parked: store.parked(&lanes).await?,
        lanes,
        asked,
    };
    Ok(Turned::Holds {
        renewed,
        released: turn.release,
        granted,
        give_back,
        seen,
    })
}
