use secrecy::ExposeSecret;

use super::*;

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from("target/tmp/secrets").join(name);
    std::fs::create_dir_all(path.join("database")).expect("a folder");
    path
}

fn password(name: &str) -> Vec<Projection> {
    let source = SecretSource::Secret {
        name: name.to_owned(),
        key: "password".to_owned(),
    };
    vec![Projection {
        file: SecretFile::DatabasePassword,
        source,
    }]
}

#[test]
fn one_newline_at_the_end_is_no_part_of_a_secret() {
    for (content, secret) in [
        ("a", "a"),
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("", ""),
    ] {
        assert_eq!(without_newline(content.to_owned()), secret);
    }
}

#[test]
fn a_changed_file_is_seen_at_the_next_look() {
    let path = folder("change");
    let secrets = Secrets::folder(&path);
    for content in ["old", "new"] {
        std::fs::write(path.join("database/password"), content).expect("written");
        assert_eq!(
            secrets
                .get(SecretFile::DatabasePassword)
                .expect("there")
                .expose_secret(),
            content
        );
    }
}

#[test]
fn a_missing_file_names_itself_and_the_field_to_correct() {
    let error = Secrets::folder("/nowhere")
        .get(SecretFile::DatabasePassword)
        .expect_err("missing");
    assert_eq!(
        error.to_string(),
        "secret file 'database/password' is missing: create it, or correct \
         spec.database.credentialsSecretRef"
    );
    assert_eq!(error.problem().class, ProblemClass::SecretMissing);
}

#[test]
fn a_file_that_is_no_text_is_told_apart_from_a_missing_one() {
    let path = folder("bytes");
    std::fs::write(path.join("database/password"), [0xff, 0xfe]).expect("written");
    let error = Secrets::folder(&path)
        .get(SecretFile::DatabasePassword)
        .expect_err("no text");
    assert_eq!(error.problem().class, ProblemClass::SecretInvalid);
}

#[test]
fn a_file_that_cannot_be_read_is_told_apart_from_a_missing_one() {
    let path = folder("folder");
    std::fs::create_dir_all(path.join("database/password")).expect("a folder in its place");
    let error = Secrets::folder(&path)
        .get(SecretFile::DatabasePassword)
        .expect_err("a folder");
    assert!(matches!(error, SecretError::Read { .. }), "{error}");
}

#[test]
fn a_document_of_the_manifest_comes_before_the_folder() {
    let path = folder("both");
    std::fs::create_dir_all(path.join("db")).expect("a folder");
    std::fs::write(path.join("db/password"), "from the folder").expect("written");
    let mut documents = EmbeddedData::default();
    let read = |documents: &EmbeddedData| {
        let secrets = Secrets::manifest(password("db"), documents.clone(), Some(path.clone()));
        secrets
            .get(SecretFile::DatabasePassword)
            .expect("there")
            .expose_secret()
            .to_owned()
    };
    assert_eq!(read(&documents), "from the folder");
    documents.add_secret(
        "db".to_owned(),
        BTreeMap::from([("password".to_owned(), b"from the document\n".to_vec())]),
    );
    assert_eq!(read(&documents), "from the document");
}

#[test]
fn a_missing_document_names_secret_and_key() {
    let secrets = Secrets::manifest(password("db"), EmbeddedData::default(), None);
    let error = secrets
        .get(SecretFile::DatabasePassword)
        .expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("key 'password' of Secret 'db' is missing"),
        "{error}"
    );
}

#[test]
fn a_name_cannot_lead_out_of_the_folder() {
    let secrets = Secrets::manifest(password(".."), EmbeddedData::default(), Some(folder("out")));
    assert!(matches!(
        secrets.get(SecretFile::DatabasePassword),
        Err(SecretError::Missing { .. })
    ));
}

#[test]
fn debug_output_shows_no_value() {
    let mut documents = EmbeddedData::default();
    documents.add_secret(
        "db".to_owned(),
        BTreeMap::from([("password".to_owned(), b"hunter2".to_vec())]),
    );
    let secrets = Secrets::manifest(password("db"), documents.clone(), None);
    let shown = format!(
        "{secrets:?} {documents:?} {:?}",
        secrets.get(SecretFile::DatabasePassword)
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// Kubelet changes all files of a volume in one step, by a symbolic link.
#[test]
fn a_link_that_is_swapped_is_another_reading_and_an_old_reading_stays_as_it_was() {
    let path = folder("link");
    for (version, content) in [("v1", "old"), ("v2", "new")] {
        std::fs::create_dir_all(path.join(version)).expect("created");
        std::fs::write(path.join(version).join("password"), content).expect("written");
    }
    std::fs::remove_dir_all(path.join("database")).expect("it was there");
    let link = |to: &str| {
        let _ = std::fs::remove_file(path.join("next"));
        std::os::unix::fs::symlink(to, path.join("next")).expect("linked");
        std::fs::rename(path.join("next"), path.join("database")).expect("swapped");
    };
    link("v1");
    let secrets = Secrets::folder(&path);
    let read = || secrets.read_all(&[SecretFile::DatabasePassword]);
    let (old, again) = (read(), read());
    link("v2");
    assert!(old == again && old != read());
    assert_eq!(
        Secrets::from(old)
            .get(SecretFile::DatabasePassword)
            .expect("kept")
            .expose_secret(),
        "old"
    );
    std::fs::remove_file(path.join("database")).expect("it was there");
}
