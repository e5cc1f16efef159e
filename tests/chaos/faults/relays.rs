//! Faults of relays: killed, paused and scaled relays, another version, a stepped clock.

use std::time::Duration;

use tokio::time::sleep;

use super::seconds;
use crate::{
    schedule::{Fault, FaultKind},
    servers::relays::RELAYS_MAX,
    testbed::{RELAYS, STEPPED_CLOCK_RELAY, Testbed},
};

pub(super) async fn inject(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        FaultKind::KillRelay => {
            let relay = pick_relay(testbed, fault).await?;
            testbed.relays.lock().await.kill(relay)?;
            sleep(fault.duration).await;
            testbed.relays.lock().await.start(relay)?;
            Ok(format!("relay {relay} for {}", seconds(fault.duration)))
        }
        FaultKind::PauseRelay => {
            let relay = pick_relay(testbed, fault).await?;
            testbed.relays.lock().await.signal(relay, "STOP")?;
            sleep(fault.duration).await;
            testbed.relays.lock().await.signal(relay, "CONT")?;
            Ok(format!("relay {relay} for {}", seconds(fault.duration)))
        }
        FaultKind::OtherVersion => other_version(testbed, fault.duration).await,
        FaultKind::StepClock => {
            let hours = [-24, -2, 2, 24][(fault.victim % 4) as usize];
            testbed.relays.lock().await.set_clock(hours)?;
            sleep(fault.duration).await;
            testbed.relays.lock().await.set_clock(0)?;
            Ok(format!(
                "relay {STEPPED_CLOCK_RELAY} by {hours} h, for {}",
                seconds(fault.duration)
            ))
        }
        _ => scale(testbed, fault.duration).await,
    }
}

/// Replaces the last relay with one of another version, and that one with the normal version.
async fn other_version(testbed: &Testbed, duration: Duration) -> anyhow::Result<String> {
    let mut relays = testbed.relays.lock().await;
    relays.stop(RELAYS).await?;
    relays.start_other(RELAYS)?;
    drop(relays);
    sleep(duration).await;
    let mut relays = testbed.relays.lock().await;
    relays.stop(RELAYS).await?;
    relays.start(RELAYS)?;
    Ok(format!("with the others for {}", seconds(duration)))
}

/// Selects a relay that runs.
async fn pick_relay(testbed: &Testbed, fault: Fault) -> anyhow::Result<u8> {
    let running = testbed.relays.lock().await.running();
    anyhow::ensure!(!running.is_empty(), "no relay runs: see their logs");
    Ok(running[(fault.victim % running.len() as u64) as usize])
}

/// Changes the number of relays. It stops them with SIGTERM, as a Deployment does.
async fn scale(testbed: &Testbed, duration: Duration) -> anyhow::Result<String> {
    let mut relays = testbed.relays.lock().await;
    for number in 2..=RELAYS {
        relays.stop(number).await?;
    }
    sleep(duration / 3).await;
    for number in 2..=RELAYS_MAX {
        relays.start(number)?;
    }
    sleep(duration / 3).await;
    for number in 3..=RELAYS_MAX {
        relays.stop(number).await?;
    }
    sleep(duration / 3).await;
    relays.start(3)?;
    Ok("then 3 again".to_owned())
}
