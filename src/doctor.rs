//! `outbox-relay doctor`: why nothing arrives. [`facts`] are read by a thin edge, [`checks`] judge
//! them without IO, and each finding has a code that [`codes`] explains.

pub mod checks;
pub mod codes;
pub mod facts;
pub mod gather;
pub mod job;
pub mod report;

pub use codes::Code;
pub use report::{Finding, Outcome, Report, Threshold};
