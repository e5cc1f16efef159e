//! The network of a run. Each server has a namespace with an address, and all are on one bridge.
//! The program runs in fresh namespaces of network, mounts and processes (tests/chaos/run). The
//! kernel removes them when the program ends for whatever reason.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::Context;

const BRIDGE: &str = "chaos0";

/// A host in this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Host {
    Postgres,
    Broker(u8),
    Relay(u8),
}

impl Host {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Postgres => "postgres".to_owned(),
            Self::Broker(n) => format!("broker-{n}"),
            Self::Relay(n) => format!("relay-{n}"),
        }
    }

    pub(crate) fn address(self) -> String {
        let last = match self {
            Self::Postgres => 2,
            Self::Broker(n) => 10 + n,
            Self::Relay(n) => 20 + n,
        };
        format!("10.91.0.{last}")
    }

    /// A command that runs on this host. The process ends with this program.
    pub(crate) fn command(self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name(), program])
            .stdin(Stdio::null());
        command
    }
}

/// Creates the network. Each host drops packets from the addresses in its set `cut`. Its chain
/// `loss` drops a share of all packets.
pub(crate) fn create(hosts: &[Host]) -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
    run("ip", &["addr", "add", "10.91.0.1/24", "dev", BRIDGE])?;
    run("ip", &["link", "set", BRIDGE, "up"])?;
    for host in hosts {
        let (name, port) = (host.name(), format!("v-{}", host.name()));
        run("ip", &["netns", "add", &name])?;
        run(
            "ip",
            &[
                "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ],
        )?;
        run("ip", &["link", "set", &port, "master", BRIDGE, "up"])?;
        run(
            "ip",
            &[
                "-n",
                &name,
                "addr",
                "add",
                &format!("{}/24", host.address()),
                "dev",
                "eth0",
            ],
        )?;
        run("ip", &["-n", &name, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        nft(
            *host,
            "table inet chaos {
                 set cut { type ipv4_addr; }
                 chain input { type filter hook input priority 0; ip saddr @cut drop; }
                 chain loss { type filter hook input priority 1; }
             }",
        )?;
    }
    Ok(())
}

/// Cuts the connection between two hosts: packets in both directions are dropped.
pub(crate) fn cut(one: Host, other: Host) -> anyhow::Result<()> {
    nft(
        one,
        &format!("add element inet chaos cut {{ {} }}", other.address()),
    )?;
    nft(
        other,
        &format!("add element inet chaos cut {{ {} }}", one.address()),
    )
}

/// Restores the connection between two hosts.
pub(crate) fn reconnect(one: Host, other: Host) -> anyhow::Result<()> {
    nft(
        one,
        &format!("delete element inet chaos cut {{ {} }}", other.address()),
    )?;
    nft(
        other,
        &format!("delete element inet chaos cut {{ {} }}", one.address()),
    )
}

/// Drops a percentage of the packets that a host receives from others. 0 drops none.
pub(crate) fn drop_packets(host: Host, percent: u8) -> anyhow::Result<()> {
    nft(host, "flush chain inet chaos loss")?;
    if percent == 0 {
        Ok(())
    } else {
        nft(
            host,
            &format!("add rule inet chaos loss iif eth0 numgen random mod 100 < {percent} drop"),
        )
    }
}

/// Redirects connections from a host to ports of this program. Each entry is a server, its port,
/// and the port of this program.
pub(crate) fn redirect(from: Host, ports: &[(Host, u16, u16)]) -> anyhow::Result<()> {
    let rules = ports.iter().map(|(to, port, here)| {
        format!(
            "ip daddr {} tcp dport {port} dnat to 10.91.0.1:{here}\n",
            to.address()
        )
    });
    let table = format!(
        "table ip divert {{ chain output {{ type nat hook output priority -100;\n{} }}\n }}",
        rules.collect::<String>()
    );
    nft(from, &table)
}

fn nft(host: Host, script: &str) -> anyhow::Result<()> {
    let mut child = host
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    child
        .stdin
        .take()
        .context("nft has no stdin")?
        .write_all(script.as_bytes())?;
    let done = child.wait_with_output()?;
    anyhow::ensure!(
        done.status.success(),
        "nft on {}: {}",
        host.name(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// Runs a program and waits for it.
///
/// # Errors
///
/// If it cannot be run or fails. The message has its stderr.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}
