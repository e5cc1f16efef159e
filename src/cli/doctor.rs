//! `doctor`: reads facts until they are good enough or time is up, and writes the report. IO; what
//! the facts mean is decided in [`crate::doctor`].

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::OutboxRelay,
    cli::{
        CliError, Exit,
        args::{DoctorArgs, DoctorCommand},
        note, text, write,
    },
    doctor::{
        Code, Report, Threshold,
        checks::{Moment, check},
        gather::gather,
        job,
    },
    manifest,
    report::{Problem, ProblemClass},
    settings::{
        RelaySettings,
        source::{SettingsSource, SettingsSourceError},
    },
};

/// Pause between two attempts with `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// Everything that a bug report needs: findings and settings. Neither has secrets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    report: &'a Report,
    /// `None` if they cannot be read.
    settings: Option<RelaySettings>,
}

/// Runs `doctor`.
///
/// # Errors
/// Returns an error when the output cannot be written.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub(super) async fn doctor(arguments: DoctorArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    if let Some(DoctorCommand::Explain { code }) = arguments.command {
        explain(code, out)?;
        return Ok(Exit::Done);
    }
    if arguments.print_job {
        print_job(&arguments, out)?;
        return Ok(Exit::Done);
    }
    let patience = Patience {
        moment: arguments.moment(),
        threshold: arguments.fail_on,
        until: arguments.wait.map(|wait| Instant::now() + wait),
    };
    let source = arguments.common.config.source(arguments.cluster_name);
    let report = examine(&source, &patience).await;
    write(out, arguments.common.output, &report, Report::in_words)?;
    if let Some(file) = &arguments.bundle {
        write_bundle(file, &report, &source)?;
    }
    Ok(exit(&report, arguments.fail_on))
}

/// What is good enough, and until when to wait for that.
struct Patience {
    moment: Moment,
    threshold: Threshold,
    /// `None`: one attempt.
    until: Option<Instant>,
}

/// Makes the checks, again and again until they do not fail or time is up.
async fn examine(source: &SettingsSource, patience: &Patience) -> Report {
    loop {
        let report = check(&gather(source).await, patience.moment);
        let is_over = patience.until.is_none_or(|until| Instant::now() >= until);
        if is_over || !report.fails(patience.threshold) {
            return report;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn exit(report: &Report, threshold: Threshold) -> Exit {
    if report.fails(threshold) {
        Exit::FaultFound
    } else {
        Exit::Done
    }
}

fn explain(code: Code, out: &mut impl Write) -> Result<(), CliError> {
    let text = format!(
        "{code} ({})\n{}\n",
        code.group().heading(),
        code.explanation()
    );
    Ok(out.write_all(text.as_bytes())?)
}

/// Writes the objects as YAML. The manifest in them has no Secrets.
fn print_job(arguments: &DoctorArgs, out: &mut impl Write) -> Result<(), CliError> {
    let file = arguments.common.config.manifest.as_deref();
    let (relay, projections) =
        manifest::load_relay(file.unwrap_or(Path::new(""))).map_err(SettingsSourceError::from)?;
    let image = relay.spec.template.image.as_ref();
    let image = arguments.image.as_ref().or(image).ok_or_else(no_image)?;
    let text = yaml(&json!({
        "apiVersion": OutboxRelay::api_version(&()),
        "kind": OutboxRelay::kind(&()),
        "metadata": {"name": relay.metadata.name, "namespace": relay.metadata.namespace},
        "spec": relay.spec,
    }));
    let options = arguments.options_of_job();
    for object in job::objects(&relay, &text, &projections, image, &options) {
        write!(out, "---\n{}", yaml(&object))?;
    }
    Ok(())
}

fn no_image() -> Problem {
    let message = "no image is known: set --image, or template.image in the manifest";
    Problem::new(ProblemClass::InvalidSettings, message)
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).expect("plain data of our own")
}

fn write_bundle(file: &Path, report: &Report, source: &SettingsSource) -> Result<(), CliError> {
    let settings = source.load().ok().map(|(settings, _)| settings);
    let bundle = text::json(&Bundle { report, settings });
    std::fs::write(file, bundle)?;
    note(&format!("wrote '{}'", file.display()));
    Ok(())
}
