//! Which rights a relay's user lacks, once the server has refused one. IO.

use sqlx::Row;

use crate::{
    outbox::Connections,
    report::{Problem, ProblemClass},
    settings::SchemaName,
};

/// Adds the rights that the user lacks to a problem about a missing right. Leaves other problems as
/// they are, and also this one if the rights cannot be read.
///
/// # Cancel safety
/// Only reads.
pub async fn with_lacking_rights(
    connections: &Connections,
    schema: &SchemaName,
    problem: Problem,
) -> Problem {
    if problem.class != ProblemClass::InsufficientPrivilege {
        return problem;
    }
    let query = sqlx::query(include_str!("sql/lacking_rights.sql")).bind(schema.as_str());
    match connections.rows(query).await {
        Ok(rows) => {
            let lacking: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
            described(&lacking, problem)
        }
        Err(_) => problem,
    }
}

/// The problem with the rights that are lacking in front: its end may be cut.
fn described(lacking: &[String], problem: Problem) -> Problem {
    if lacking.is_empty() {
        return problem;
    }
    let message = format!(
        "the database user lacks {}: run the migration again, or GRANT it; {}",
        lacking.join(", "),
        problem.message
    );
    Problem::new(problem.class, message)
}
