//! The sources below `src/`: their code without comments, texts and tests, and whether they say
//! that they are pure. Reads files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::paths::{is_below, named};

pub(super) struct Source {
    /// Below `src/`.
    pub(super) path: String,
    pub(super) code: String,
    /// What it names, as full paths.
    paths: Vec<String>,
    /// Its own header says so.
    says_pure: bool,
}

/// All of them but those of tests.
pub(super) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let path = file
                .strip_prefix(&root)
                .expect("below src")
                .to_string_lossy()
                .into_owned();
            (path, fs::read_to_string(file).expect("a source file"))
        })
        .collect();
    let tests: Vec<String> = texts
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let of_tests = |path: &str| tests.iter().any(|test| is_part_of(path, test));
    texts
        .iter()
        .filter(|(path, _)| !of_tests(path))
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = code(
            text.split("\n#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default(),
        );
        let module = format!("crate::{}", module(path).replace('/', "::"));
        Self {
            path: path.to_owned(),
            paths: named(&code, &module),
            code,
            says_pure: says_pure(text),
        }
    }

    pub(super) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path == *place || (place.ends_with('/') && self.path.starts_with(place))
        })
    }

    /// Whether it names `root` or something below it; what ends in `(` stands for a call.
    pub(super) fn uses(&self, root: &str) -> bool {
        self.paths.iter().any(|path| is_below(path, root))
    }
}

/// Those that say that they are pure, and what lies below them.
pub(super) fn pure(sources: &[Source]) -> Vec<&Source> {
    let roots: Vec<&str> = sources
        .iter()
        .filter(|source| source.says_pure)
        .map(|source| module(&source.path))
        .collect();
    sources
        .iter()
        .filter(|source| roots.iter().any(|root| is_part_of(&source.path, root)))
        .collect()
}

fn module(path: &str) -> &str {
    path.strip_suffix(".rs").unwrap_or(path)
}

fn is_part_of(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// A sentence of the header begins with "Pure". One that goes on "but for ..." tells what is not,
/// and is not held to it; a cell that passes share is no IO.
fn says_pure(text: &str) -> bool {
    let header: Vec<&str> = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line[3..].trim())
        .collect();
    let header = header.join(" ");
    let mut sentences = header
        .split(['.', '?'])
        .map(str::trim)
        .filter(|sentence| sentence.starts_with("Pure"));
    sentences.any(|said| {
        said == "Pure but for the shared cell"
            || !(said.contains("but for") || said.contains("except"))
    })
}

/// Modules that are compiled for tests alone, as paths below `src/` without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = module(path);
    let after = text.split("#[cfg(test)]\n").skip(1);
    let named = after.filter_map(|rest| {
        let (elsewhere, rest) = match rest.strip_prefix("#[path = \"") {
            Some(rest) => rest
                .split_once("\"]\n")
                .map(|(file, rest)| (Some(file), rest))?,
            None => (None, rest),
        };
        let name = rest.split_once(";\n")?.0.split_once("mod ")?;
        let declared = name.0.is_empty() || name.0 == "pub(crate) " || name.0 == "pub ";
        let beside = Path::new(folder).parent().expect("a folder");
        declared.then(|| {
            elsewhere.map_or(format!("{folder}/{}", name.1), |file| {
                module(&beside.join(file).to_string_lossy()).to_owned()
            })
        })
    });
    named.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Without comments and texts, which import nothing.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        let (before, from) = rest.split_at(at);
        code.push_str(before);
        let skipped = if from.starts_with("//") {
            from.find('\n').unwrap_or(from.len())
        } else if from.starts_with('"') {
            let raw = before.ends_with('r') || before.ends_with('#');
            text_length(
                from,
                if raw {
                    before.len() - before.trim_end_matches('#').len()
                } else {
                    0
                },
                raw,
            )
        } else if from.starts_with('\'') {
            character_length(from)
        } else {
            0
        };
        code.push_str(if skipped == 0 { &from[..1] } else { " " });
        rest = &from[skipped.max(1)..];
    }
    code + rest
}

/// Of a text from its first quote to its last.
fn text_length(text: &str, hashes: usize, raw: bool) -> usize {
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return text[1..]
            .find(&end)
            .map_or(text.len(), |at| at + 1 + end.len());
    }
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |at| at + 2)
}

/// Of a character in quotes; 0: it is a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    let Some((_, first)) = characters.next() else {
        return 0;
    };
    let closing = characters.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    match (first, text.chars().nth(2)) {
        ('\\', _) if text[2..].starts_with('\'') => 4,
        ('\\', _) => closing.unwrap_or(0),
        (_, Some('\'')) => closing.unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn comments_texts_and_characters_are_no_code() {
    let source = r##"a // kube::Client
        "kube::\" x" b '"' c 'x' d<'a>( '\'' , r#"kube "::" Client"# ) e '\u{1f}' "two
        lines" f"##;
    let kept: Vec<&str> = source_words(source);
    assert_eq!(kept, ["a", "b", "c", "d", "a", "r", "e", "f"]);
}

fn source_words(text: &str) -> Vec<&'static str> {
    let code = code(text).leak();
    code.split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn a_header_says_whether_its_module_is_pure() {
    for (header, pure) in [
        ("//! Facts in, a plan out. Pure.\n", true),
        ("//! Are the new ones taken? Pure.\n//! More.\n", true),
        (
            "//! What the model allows. Pure, and the same for the same\n//! seed.\n",
            true,
        ),
        ("//! A breaker. Pure but for the shared cell.\n", true),
        ("//! Settings. Pure but for reading secret files.\n", false),
        ("//! Pure, except for [`publish`], which writes.\n", false),
        ("//! Asking is IO, what is printed is pure.\n", false),
        ("fn f() {}\n// Pure.\n", false),
    ] {
        assert_eq!(says_pure(header), pure, "{header}");
    }
}

#[test]
fn modules_of_tests_are_found() {
    let text = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[path = \"marks_model.rs\"]\nmod \
        model;\n#[cfg(test)]\npub(crate) mod fixtures;\n#[cfg(test)]\nimpl X {}\n";
    assert_eq!(
        test_modules("relay/marks.rs", text),
        [
            "relay/marks/tests",
            "relay/marks_model",
            "relay/marks/fixtures"
        ]
    );
}
