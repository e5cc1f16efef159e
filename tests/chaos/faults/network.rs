//! A network that cuts, loses and delays.

use std::time::Duration;

use tokio::time::sleep;

use super::seconds;
use crate::{
    schedule::{Fault, Kind},
    servers::{
        kafka::BROKERS,
        net::{self, Host},
        proxy::Delay,
    },
    world::{DIVERTED, World},
};

pub(super) async fn inject(world: &World, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        Kind::Cut => {
            let (one, other) = two_ends(fault.victim);
            net::cut(one, other)?;
            sleep(fault.during).await;
            net::mend(one, other)?;
            Ok(format!(
                "between {} and {} for {}",
                one.name(),
                other.name(),
                seconds(fault.during)
            ))
        }
        Kind::Loss => {
            let (_, host) = two_ends(fault.victim);
            let percent = 2 + (fault.victim >> 40) as u8 % 30;
            net::lose(host, percent)?;
            sleep(fault.during).await;
            net::lose(host, 0)?;
            Ok(format!(
                "{percent} % of what {} should hear, for {}",
                host.name(),
                seconds(fault.during)
            ))
        }
        _ => {
            let least = Duration::from_millis(2 + (fault.victim >> 40) % 100);
            world.proxy.set((least, 3 * least));
            sleep(fault.during).await;
            world.proxy.set(Delay::default());
            Ok(format!(
                "{least:?} to {:?} each way for {}, for {}",
                3 * least,
                DIVERTED.name(),
                seconds(fault.during)
            ))
        }
    }
}

/// Two hosts that speak to each other. Not the diverted relay: that speaks to this program.
fn two_ends(victim: u64) -> (Host, Host) {
    let relay = if victim & 8 == 0 {
        Host::Relay(1)
    } else {
        Host::Relay(3)
    };
    let broker = |n: u64| Host::Broker((n % u64::from(BROKERS)) as u8 + 1);
    match victim % 3 {
        0 => (Host::Postgres, relay),
        1 => (relay, broker(victim >> 16)),
        _ => (broker(victim >> 16), broker((victim >> 16) + 1)),
    }
}
