//! Certificates for a test, from the rig's certificate authorities.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::rig::rig;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A certificate and its key as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A client certificate from the rig's authority.
pub(crate) fn client(common_name: &str) -> Pair {
    issue(common_name, "ca", 1)
}

/// A certificate for 127.0.0.1 from the rig's authority.
pub(crate) fn server() -> Pair {
    issue("localhost", "ca", 1)
}

/// A certificate for 127.0.0.1 from the rig's authority that expired yesterday.
pub(crate) fn expired_server() -> Pair {
    issue("localhost", "ca", -1)
}

/// How a certificate of a test's own is made.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) common_name: &'static str,
    /// Extensions; empty for a certificate of version 1.
    pub(crate) extensions: &'static str,
    pub(crate) days: i32,
}

/// Extensions that `openssl req -x509` adds.
pub(crate) const OF_OPENSSL: &str = "basicConstraints=critical,CA:TRUE\n\
    subjectKeyIdentifier=hash\n";
/// Extensions of a server's certificate without a name.
pub(crate) const NAMELESS: &str = "basicConstraints=CA:FALSE\n";

/// A certificate that is signed with its own key, or by `authority`.
pub(crate) fn own_pair(kind: Form, authority: Option<&Pair>) -> Pair {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("it_{}_form_{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("created");
    let path = |file: &str| folder.join(file);
    std::fs::write(path("extensions"), kind.extensions).expect("written");
    let subject = format!("/CN={}", kind.common_name);
    openssl(
        Command::new("openssl")
            .args([
                "req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &subject,
            ])
            .arg("-keyout")
            .arg(path("key"))
            .arg("-out")
            .arg(path("request")),
    );
    let mut sign = Command::new("openssl");
    sign.args(["x509", "-req", "-days", &kind.days.to_string(), "-in"])
        .arg(path("request"))
        .arg("-out")
        .arg(path("certificate"));
    if !kind.extensions.is_empty() {
        sign.arg("-extfile").arg(path("extensions"));
    }
    match authority {
        None => sign.arg("-signkey").arg(path("key")),
        Some(authority) => {
            std::fs::write(path("ca"), &authority.certificate).expect("written");
            std::fs::write(path("ca.key"), &authority.key).expect("written");
            sign.arg("-CA")
                .arg(path("ca"))
                .arg("-CAkey")
                .arg(path("ca.key"))
                .arg("-CAcreateserial")
        }
    };
    openssl(&mut sign);
    let read = |file: &str| std::fs::read_to_string(path(file)).expect("made");
    let pair = Pair {
        certificate: read("certificate"),
        key: read("key"),
    };
    std::fs::remove_dir_all(&folder).ok();
    pair
}

fn issue(common_name: &str, authority: &str, days: i32) -> Pair {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder =
        std::env::temp_dir().join(format!("it_{}_certificate_{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("created");
    let path = |file: &str| folder.join(file);
    let ours = PathBuf::from(rig("RIG_TLS"));
    std::fs::write(
        path("extensions"),
        "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .expect("written");
    openssl(
        Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
            ])
            .arg(path("key")),
    );
    let request = [
        "req",
        "-new",
        "-subj",
        &format!("/CN={common_name}"),
        "-key",
    ]
    .map(str::to_owned);
    openssl(
        Command::new("openssl")
            .args(request)
            .arg(path("key"))
            .arg("-out")
            .arg(path("request")),
    );
    openssl(
        Command::new("openssl")
            .args([
                "x509",
                "-req",
                "-days",
                &days.to_string(),
                "-set_serial",
                &format!("{}{number:04}", std::process::id()),
                "-in",
            ])
            .arg(path("request"))
            .arg("-CA")
            .arg(ours.join(format!("{authority}.crt")))
            .arg("-CAkey")
            .arg(ours.join(format!("{authority}.key")))
            .arg("-extfile")
            .arg(path("extensions"))
            .arg("-out")
            .arg(path("certificate")),
    );
    let read = |file: &str| std::fs::read_to_string(path(file)).expect("made");
    let pair = Pair {
        certificate: read("certificate"),
        key: read("key"),
    };
    std::fs::remove_dir_all(&folder).ok();
    pair
}

fn openssl(command: &mut Command) {
    let output = command.output().expect("openssl runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
