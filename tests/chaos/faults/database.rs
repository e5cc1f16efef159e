//! Faults of the database: a killed or paused server and the operations of administrators.

use sqlx::raw_sql;
use tokio::time::sleep;

use super::{
    rewinds::{self, Ids},
    seconds,
};
use crate::{
    schedule::{Fault, FaultKind},
    servers::postgres,
    testbed::Testbed,
};

pub(super) async fn inject(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        FaultKind::KillPostgres => {
            let mut postgres = testbed.postgres.lock().await;
            postgres.kill().await?;
            sleep(fault.duration).await;
            postgres.start().await?;
            Ok(format!("for {}", seconds(fault.duration)))
        }
        FaultKind::PausePostgres => {
            let postgres = testbed.postgres.lock().await;
            postgres.signal_all("STOP")?;
            sleep(fault.duration).await;
            postgres.signal_all("CONT")?;
            Ok(format!("for {}", seconds(fault.duration)))
        }
        FaultKind::TerminateBackends => {
            let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname \
                is not null and pid <> pg_backend_pid()";
            let done = raw_sql(terminate)
                .execute(&mut postgres::connect().await?)
                .await?;
            Ok(format!("{} backends", done.rows_affected()))
        }
        FaultKind::PinXmin => {
            let mut connection = postgres::connect().await?;
            raw_sql(
                "begin isolation level repeatable read; select pg_current_xact_id(), count(*) \
                from outbox.event",
            )
            .execute(&mut connection)
            .await?;
            sleep(fault.duration).await;
            raw_sql("rollback").execute(&mut connection).await?;
            Ok(format!("for {}", seconds(fault.duration)))
        }
        FaultKind::RestartBouncer => {
            let mut postgres = testbed.postgres.lock().await;
            postgres.kill_bouncer()?;
            sleep(fault.duration).await;
            postgres.start_bouncer().await?;
            Ok(format!("after {}", seconds(fault.duration)))
        }
        FaultKind::FillDisk => {
            let mut postgres = testbed.postgres.lock().await;
            postgres.fill_disk()?;
            sleep(fault.duration).await;
            let crashed = postgres.free_disk().await?;
            Ok(format!(
                "for {}, the server {}",
                seconds(fault.duration),
                if crashed { "crashed" } else { "kept running" }
            ))
        }
        FaultKind::Empty => rewinds::truncate(testbed, Ids::Continue).await,
        FaultKind::Truncate => rewinds::truncate(testbed, Ids::RestartAtOne).await,
        FaultKind::SetBack => rewinds::truncate(testbed, Ids::RestartAtWaiting).await,
        FaultKind::FailOver => rewinds::fail_over(testbed, fault.duration).await,
        _ => rewinds::restore(testbed, fault.duration).await,
    }
}
