//! Faults of the network: cut connections, lost packets, delays.

use std::time::Duration;

use tokio::time::sleep;

use super::seconds;
use crate::{
    schedule::{Fault, FaultKind},
    servers::{
        kafka::BROKERS,
        net::{self, Host},
    },
    testbed::{PROXIED_HOST, Testbed},
};

pub(super) async fn inject(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        FaultKind::Cut => {
            let (one, other) = endpoints(fault.victim);
            net::cut(one, other)?;
            sleep(fault.duration).await;
            net::reconnect(one, other)?;
            Ok(format!(
                "between {} and {} for {}",
                one.name(),
                other.name(),
                seconds(fault.duration)
            ))
        }
        FaultKind::Loss => {
            let (_, host) = endpoints(fault.victim);
            let percent = 2 + (fault.victim >> 40) as u8 % 30;
            net::drop_packets(host, percent)?;
            sleep(fault.duration).await;
            net::drop_packets(host, 0)?;
            Ok(format!(
                "{percent} % of the packets to {}, for {}",
                host.name(),
                seconds(fault.duration)
            ))
        }
        _ => {
            let least = Duration::from_millis(2 + (fault.victim >> 40) % 100);
            testbed.proxy.set((least, 3 * least));
            sleep(fault.duration).await;
            testbed.proxy.reset();
            Ok(format!(
                "{least:?} to {:?} each way for {}, for {}",
                3 * least,
                PROXIED_HOST.name(),
                seconds(fault.duration)
            ))
        }
    }
}

/// Two hosts that have connections to each other. Never [`PROXIED_HOST`], which connects to this
/// program.
fn endpoints(victim: u64) -> (Host, Host) {
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
