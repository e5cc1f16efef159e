//! PostgreSQL that dies or stands still, and what people do to it.

use sqlx::raw_sql;
use tokio::time::sleep;

use super::{
    rewinds::{self, Ids},
    seconds,
};
use crate::{
    schedule::{Fault, Kind},
    servers::postgres,
    world::World,
};

pub(super) async fn inject(world: &World, fault: Fault) -> anyhow::Result<String> {
    match fault.kind {
        Kind::KillPostgres => {
            let mut postgres = world.postgres.lock().await;
            postgres.kill().await?;
            sleep(fault.during).await;
            postgres.start().await?;
            Ok(format!("for {}", seconds(fault.during)))
        }
        Kind::PausePostgres => {
            let postgres = world.postgres.lock().await;
            postgres.signal_all("STOP")?;
            sleep(fault.during).await;
            postgres.signal_all("CONT")?;
            Ok(format!("for {}", seconds(fault.during)))
        }
        Kind::TerminateBackends => {
            let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname \
                is not null and pid <> pg_backend_pid()";
            let done = raw_sql(terminate)
                .execute(&mut postgres::connect().await?)
                .await?;
            Ok(format!("{} of them", done.rows_affected()))
        }
        Kind::PinXmin => {
            let mut connection = postgres::connect().await?;
            raw_sql(
                "begin isolation level repeatable read; select pg_current_xact_id(), count(*) \
                from outbox.event",
            )
            .execute(&mut connection)
            .await?;
            sleep(fault.during).await;
            raw_sql("rollback").execute(&mut connection).await?;
            Ok(format!("for {}", seconds(fault.during)))
        }
        Kind::RestartBouncer => {
            let mut postgres = world.postgres.lock().await;
            postgres.kill_bouncer()?;
            sleep(fault.during).await;
            postgres.start_bouncer().await?;
            Ok(format!("after {}", seconds(fault.during)))
        }
        Kind::FillDisk => {
            let mut postgres = world.postgres.lock().await;
            postgres.fill_disk()?;
            sleep(fault.during).await;
            let died = postgres.free_disk().await?;
            Ok(format!(
                "for {}, the server {}",
                seconds(fault.during),
                if died { "died of it" } else { "lived on" }
            ))
        }
        Kind::Empty => rewinds::truncate(world, Ids::GoOn).await,
        Kind::Truncate => rewinds::truncate(world, Ids::AtOne).await,
        Kind::SetBack => rewinds::truncate(world, Ids::AtThoseThatWaited).await,
        Kind::FailOver => rewinds::fail_over(world, fault.during).await,
        _ => rewinds::restore(world, fault.during).await,
    }
}
