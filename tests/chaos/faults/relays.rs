//! Relays that die, stand still, come and go.

use std::time::Duration;

use tokio::time::sleep;

use super::seconds;
use crate::{
    schedule::{Fault, Kind},
    servers::relays::RELAYS_MAX,
    world::{CLOCKED, RELAYS, World},
};

pub(super) async fn inject(world: &World, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        Kind::KillRelay => {
            let relay = a_relay(world, fault).await?;
            world.relays.lock().await.kill(relay)?;
            sleep(fault.during).await;
            world.relays.lock().await.start(relay)?;
            Ok(format!("relay {relay} for {}", seconds(fault.during)))
        }
        Kind::PauseRelay => {
            let relay = a_relay(world, fault).await?;
            world.relays.lock().await.signal(relay, "STOP")?;
            sleep(fault.during).await;
            world.relays.lock().await.signal(relay, "CONT")?;
            Ok(format!("relay {relay} for {}", seconds(fault.during)))
        }
        Kind::OtherVersion => other_version(world, fault.during).await,
        Kind::StepClock => {
            let hours = [-24, -2, 2, 24][(fault.victim % 4) as usize];
            world.relays.lock().await.set_clock(hours)?;
            sleep(fault.during).await;
            world.relays.lock().await.set_clock(0)?;
            Ok(format!(
                "relay {CLOCKED} by {hours} h, for {}",
                seconds(fault.during)
            ))
        }
        _ => scale(world, fault.during).await,
    }
}

/// The last relay gives way to one of another version, and that one to ours.
async fn other_version(world: &World, during: Duration) -> anyhow::Result<String> {
    let mut relays = world.relays.lock().await;
    relays.stop(RELAYS).await?;
    relays.start_other(RELAYS)?;
    drop(relays);
    sleep(during).await;
    let mut relays = world.relays.lock().await;
    relays.stop(RELAYS).await?;
    relays.start(RELAYS)?;
    Ok(format!("beside ours for {}", seconds(during)))
}

async fn a_relay(world: &World, fault: Fault) -> anyhow::Result<u8> {
    let running = world.relays.lock().await.running();
    anyhow::ensure!(!running.is_empty(), "no relay runs: look at their logs");
    Ok(running[(fault.victim % running.len() as u64) as usize])
}

/// With SIGTERM, as a Deployment does it.
async fn scale(world: &World, during: Duration) -> anyhow::Result<String> {
    let mut relays = world.relays.lock().await;
    for number in 2..=RELAYS {
        relays.stop(number).await?;
    }
    sleep(during / 3).await;
    for number in 2..=RELAYS_MAX {
        relays.start(number)?;
    }
    sleep(during / 3).await;
    for number in 3..=RELAYS_MAX {
        relays.stop(number).await?;
    }
    sleep(during / 3).await;
    relays.start(3)?;
    Ok("then 3 again".to_owned())
}
