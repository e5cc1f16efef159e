//! A wall clock that a test sets, for a program. The program's monotonic clock is the real one.
//! libfaketime does not fit: it leaves the timed waits of C11 alone, which librdkafka uses.

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

static NEXT: AtomicU32 = AtomicU32::new(0);
/// The library that programs load first.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(compile);

/// The clock. Its file is removed when this is dropped.
pub(crate) struct FakeClock {
    file: PathBuf,
}

impl FakeClock {
    /// A clock that is ahead of the right one by so many seconds, or behind if it is negative.
    pub(crate) fn ahead_by(seconds: i64) -> Self {
        let name = format!(
            "clock-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let clock = Self {
            file: std::env::temp_dir().join(name),
        };
        clock.set(seconds);
        clock
    }

    /// Steps the clock, at once.
    pub(crate) fn set(&self, seconds: i64) {
        // Programs have mapped the file, so it never gets shorter.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file);
        file.and_then(|mut file| file.write_all(&seconds.to_ne_bytes()))
            .expect("written");
    }

    /// Gives a program this clock.
    pub(crate) fn give_to(&self, program: &mut Command) {
        program
            .env("LD_PRELOAD", &*LIBRARY)
            .env("FAKE_CLOCK", &self.file);
    }
}

impl Drop for FakeClock {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).ok();
    }
}

/// Compiles the library, as the crate's C libraries are compiled.
fn compile() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/harness/fake_clock.c");
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("fake-clock-{}.so", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .output()
        .expect("cc runs");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    library
}
