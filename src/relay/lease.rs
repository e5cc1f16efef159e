//! One round of the lease: renew it, give lanes back, survey the other relays, claim lanes, read
//! what is parked. IO, in one place and one order; the loop acts on the outcome.

use std::time::Instant;

use uuid::Uuid;

use crate::{
    outbox::{Grant, Lane, LaneWatermark, ParkedReading, RowId, Store, StoreError, WantedParked},
    relay::core::{
        lane_share::{Health, LEASE_TTL, LaneMoves, Share, lane_moves, share},
        watermarks::XidTick,
    },
    report::BreakerState,
};

/// What the loop passes to a round.
pub(super) struct LeaseRound {
    pub(super) instance: Uuid,
    /// Incarnation of the outbox that the watermarks belong to.
    pub(super) incarnation: Uuid,
    /// Watermarks of all our lanes, to be written; present when a renewal is due.
    pub(super) renew: Option<Vec<LaneWatermark>>,
    /// Drained lanes to give back.
    pub(super) release: Vec<LaneWatermark>,
    /// All our lanes.
    pub(super) known: Vec<Lane>,
    /// Number of our lanes without those that drain.
    pub(super) owned: u32,
    /// Highest id seen when the round began.
    pub(super) seen: RowId,
    pub(super) breaker: BreakerState,
    pub(super) health: Health,
    /// Whether the relay may take more lanes.
    pub(super) claims: Claims,
    /// Whether to read what is parked, although no lane is claimed.
    pub(super) parked: WantedParked,
}

impl LeaseRound {
    /// Our lanes but for the drained ones.
    fn kept_lanes(&self) -> Vec<Lane> {
        let mut kept = self.known.clone();
        kept.retain(|lane| self.release.iter().all(|drained| drained.lane != *lane));
        kept
    }
}

/// Whether a round may change how many lanes this relay owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// The round claims lanes, or asks for some to be drained, according to the relay's share.
    Allowed,
    /// The session shuts down: all its lanes drain already.
    Stopped,
}

/// Result of a round.
pub(super) enum LeaseOutcome {
    /// The lease is valid.
    Held(HeldLease),
    /// The lease had run out.
    Lost,
}

/// What a round changed under a valid lease.
pub(super) struct HeldLease {
    /// Present if the lease was renewed.
    pub(super) renewed: Option<Renewed>,
    /// Lanes that were given back.
    pub(super) released: Vec<LaneWatermark>,
    /// Lanes that were claimed.
    pub(super) granted: Vec<Grant>,
    /// How many lanes to drain, because other relays have too few.
    pub(super) give_back: u32,
    /// Whether lanes are on their way from one relay to another.
    pub(super) lane_moves: LaneMoves,
    /// What is parked, if it was read.
    pub(super) parked: Option<ParkedLanes>,
}

/// What is parked in some lanes.
pub(super) struct ParkedLanes {
    pub(super) reading: ParkedReading,
    /// Lanes that were read.
    pub(super) lanes: Vec<Lane>,
    /// When the read began.
    pub(super) read_at: Instant,
}

/// A renewal that succeeded.
pub(super) struct Renewed {
    /// When the statement was sent.
    pub(super) sent: Instant,
    /// Transaction of the statement.
    pub(super) tick: XidTick,
    /// Lanes that are still ours.
    pub(super) ours: Vec<Lane>,
}

/// Runs one round.
///
/// # Errors
/// When a statement fails; those before it took effect.
///
/// # Cancel safety
/// If dropped midway, lanes may have been renewed, given back or claimed. The next round finds out.
pub(super) async fn run_round(store: Store, round: LeaseRound) -> Result<LeaseOutcome, StoreError> {
    let renewed = match renew_if_due(&store, &round).await? {
        Renewal::LeaseLost => return Ok(LeaseOutcome::Lost),
        Renewal::NotDue => None,
        Renewal::Done(renewed) => Some(renewed),
    };
    // Drained lanes are given back before lanes are claimed: the survey counts only what is kept.
    release(&store, &round).await?;
    let Balance {
        parked,
        granted,
        give_back,
        lane_moves,
    } = rebalance(&store, &round).await?;
    Ok(LeaseOutcome::Held(HeldLease {
        renewed,
        released: round.release,
        parked,
        granted,
        give_back,
        lane_moves,
    }))
}

/// What a round found out about the lanes.
struct Balance {
    parked: Option<ParkedLanes>,
    granted: Vec<Grant>,
    /// How many lanes to drain.
    give_back: u32,
    lane_moves: LaneMoves,
}

/// What became of the renewal in a round.
enum Renewal {
    NotDue,
    Done(Renewed),
    LeaseLost,
}

/// Extends the lease and writes the watermarks, if that is due.
async fn renew_if_due(store: &Store, round: &LeaseRound) -> Result<Renewal, StoreError> {
    let Some(watermarks) = &round.renew else {
        return Ok(Renewal::NotDue);
    };
    // Taken before the statement is sent: the lease is trusted from here on at most.
    let sent = Instant::now();
    let renewed = store
        .renew(
            round.instance,
            LEASE_TTL,
            round.breaker,
            watermarks,
            round.incarnation,
        )
        .await?;
    let Some((xid, ours)) = renewed else {
        return Ok(Renewal::LeaseLost);
    };
    Ok(Renewal::Done(Renewed {
        sent,
        tick: XidTick {
            xid,
            drawn: round.seen,
        },
        ours,
    }))
}

/// Gives the drained lanes back.
async fn release(store: &Store, round: &LeaseRound) -> Result<(), StoreError> {
    if round.release.is_empty() {
        return Ok(());
    }
    store
        .release(round.instance, &round.release, round.incarnation)
        .await
}

/// Compares our share with those of the other relays, and reads what is parked in our lanes if that
/// is wanted, or if we claim more.
async fn rebalance(store: &Store, round: &LeaseRound) -> Result<Balance, StoreError> {
    let (kept, read_at) = (round.kept_lanes(), Instant::now());
    if round.claims == Claims::Stopped {
        let parked = read_if_wanted(store, kept, round.parked).await?;
        return Ok(Balance::unchanged(parked));
    }
    let (survey, reading) = store.survey(round.instance, &kept, round.parked).await?;
    let parked = reading.map(|reading| ParkedLanes {
        reading,
        lanes: kept.clone(),
        read_at,
    });
    let share = share(survey, round.owned, round.health);
    let balance = match share {
        Share::Keep => Balance::unchanged(parked),
        Share::GiveBack { lanes } => Balance {
            give_back: lanes,
            ..Balance::unchanged(parked)
        },
        Share::Claim { lanes_max } => claim(store, round, kept, lanes_max).await?,
    };
    Ok(Balance {
        lane_moves: lane_moves(share, survey, round.owned),
        ..balance
    })
}

/// Claims lanes, and reads what is parked in them, too.
async fn claim(
    store: &Store,
    round: &LeaseRound,
    kept: Vec<Lane>,
    lanes_max: u32,
) -> Result<Balance, StoreError> {
    let granted = store.claim(round.instance, lanes_max, &kept).await?;
    let lanes = kept
        .into_iter()
        .chain(granted.iter().map(|grant| grant.lane));
    let wanted = WantedParked::Unless(None);
    let parked = read_if_wanted(store, lanes.collect(), wanted).await?;
    Ok(Balance {
        granted,
        ..Balance::unchanged(parked)
    })
}

impl Balance {
    /// No lane is claimed, and none is to be drained.
    fn unchanged(parked: Option<ParkedLanes>) -> Self {
        Self {
            parked,
            granted: Vec::new(),
            give_back: 0,
            lane_moves: LaneMoves::None,
        }
    }
}

async fn read_if_wanted(
    store: &Store,
    lanes: Vec<Lane>,
    wanted: WantedParked,
) -> Result<Option<ParkedLanes>, StoreError> {
    let WantedParked::Unless(known) = wanted else {
        return Ok(None);
    };
    let read_at = Instant::now();
    Ok(Some(ParkedLanes {
        reading: store.parked(&lanes, known).await?,
        lanes,
        read_at,
    }))
}
