//! Every byte of `migrations/`. sqlx compares checksums, so a changed comment is a changed migration
//! on every database.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use super::golden::compare;

#[test]
fn migrations_have_the_same_bytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut lines: Vec<String> = fs::read_dir(folder)
        .expect("migrations")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let hash = Sha256::digest(fs::read(&path).expect("a migration"));
            format!(
                "{hash:x}  {}\n",
                path.file_name().expect("a name").to_string_lossy()
            )
        })
        .collect();
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    compare("migrations.sha256", &lines.concat());
}
