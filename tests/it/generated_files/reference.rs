//! docs/reference.md: every field of an `OutboxRelay`, written from the CRD.

mod fields;
mod sections;

use std::{collections::BTreeSet, fs, path::Path};

use super::compare;
use fields::{Field, Schema, fields_below, printer_columns, rules};
use sections::{ANNOTATIONS, INTRODUCTION, SECTIONS, Section, TLS};

#[test]
fn generated_reference_has_every_field_of_the_crd() {
    compare("docs/reference.md", &page());
}

#[test]
fn each_field_of_the_spec_is_in_one_section() {
    let fields = Schema::spec().properties();
    let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let roots: Vec<&str> = SECTIONS
        .iter()
        .flat_map(|section| section.roots)
        .copied()
        .collect();
    assert_eq!(
        roots.len(),
        names.len(),
        "a field is in two sections: {roots:?}"
    );
    assert_eq!(roots.into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn annotations_of_the_reference_are_those_of_the_code() {
    let sources = rust_sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    for (name, _) in ANNOTATIONS {
        assert!(
            sources.contains(&format!("\"{name}\"")),
            "no code uses {name}"
        );
    }
}

fn rust_sources(folder: &Path) -> String {
    let mut sources = String::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        sources += &if path.is_dir() {
            rust_sources(&path)
        } else {
            fs::read_to_string(&path).expect("a source file")
        };
    }
    sources
}

fn page() -> String {
    let mut parts = vec![INTRODUCTION.to_owned(), metadata_section()];
    parts.extend(SECTIONS.iter().map(spec_section));
    parts.extend([
        tls_section(),
        status_section(),
        columns_section(),
        annotations_section(),
    ]);
    parts.join("\n")
}

fn metadata_section() -> String {
    format!(
        "## Name\n\n{}",
        rules_list(&rules("metadata.name", &Schema::object()))
    )
}

fn spec_section(section: &Section) -> String {
    let spec = Schema::spec();
    let fields: Vec<Field> = section
        .roots
        .iter()
        .flat_map(|root| fields_below(&spec, root))
        .collect();
    // The only rule of the spec as a whole is about replicas.
    let of_spec = if section.roots.contains(&"replicas") {
        rules("spec", &spec)
    } else {
        Vec::new()
    };
    with_fields(section, &fields, of_spec)
}

/// The block that `database`, `migration.database` and `kafka` share; their tables link to it.
fn tls_section() -> String {
    let tls = fields_below(&Schema::spec().property("kafka"), "tls");
    let [whole, fields @ ..] = tls.as_slice() else {
        panic!("TLS has no fields")
    };
    with_fields(&TLS, fields, whole.rules.clone())
}

fn with_fields(section: &Section, fields: &[Field], further_rules: Vec<String>) -> String {
    let Section {
        title,
        text,
        example,
        ..
    } = section;
    let mut rules: Vec<String> = fields
        .iter()
        .flat_map(|field| field.rules.clone())
        .collect();
    rules.extend(further_rules);
    let table = spec_table(fields);
    let rules = if rules.is_empty() {
        String::new()
    } else {
        format!(
            "\nRules that the API server checks:\n\n{}",
            rules_list(&rules)
        )
    };
    format!("## {title}\n\n{text}\n\n```yaml\n{example}```\n\n{table}{rules}")
}

fn status_section() -> String {
    let status = Schema::status();
    let fields = status
        .properties()
        .into_iter()
        .flat_map(|(name, _)| fields_below(&status, &name));
    let rows: String = fields
        .map(|field| {
            format!(
                "| `{}` | {} | {} |\n",
                field.path, field.kind, field.description
            )
        })
        .collect();
    let text = sections::STATUS;
    format!("## Status\n\n{text}\n\n| Field | Type | Meaning |\n|---|---|---|\n{rows}")
}

fn columns_section() -> String {
    let rows: String = printer_columns()
        .iter()
        .map(|(name, path)| format!("| `{}` | `{path}` |\n", name.to_uppercase()))
        .collect();
    let text = sections::COLUMNS;
    format!("## Columns of kubectl get\n\n{text}\n\n| Column | Shows |\n|---|---|\n{rows}")
}

fn annotations_section() -> String {
    let rows: String = ANNOTATIONS
        .iter()
        .map(|(name, effect)| format!("| `{name}` | {effect} |\n"))
        .collect();
    let text = sections::ANNOTATIONS_TEXT;
    format!("## Annotations\n\n{text}\n\n| Annotation | Effect |\n|---|---|\n{rows}")
}

fn spec_table(fields: &[Field]) -> String {
    let rows: String = fields
        .iter()
        .map(
            |Field {
                 path,
                 kind,
                 default,
                 description,
                 ..
             }| { format!("| `{path}` | {kind} | {default} | {description} |\n") },
        )
        .collect();
    format!("| Field | Type | Default | Meaning |\n|---|---|---|---|\n{rows}")
}

fn rules_list(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("- {rule}\n")).collect()
}
