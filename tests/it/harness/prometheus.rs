//! Debian's Prometheus: `promtool`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name)
}

/// Runs promtool in the project's folder.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(tool("promtool"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = piped.expect("tests/tools brings promtool");
    promtool.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    promtool.wait_with_output().expect("it ends")
}

/// All that it said, on both ways.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
