//! The sources below `src/`: their code without comments, texts and tests, and whether they say
//! that they are pure. Reads files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    lexer,
    paths::{is_below, named},
};

pub(super) struct Source {
    /// Below `src/`.
    pub(super) path: String,
    /// Path of the module, such as `crate::relay::core`.
    pub(super) module: String,
    /// Text of the file with tests overwritten by spaces.
    pub(super) text: String,
    /// `text` with comments and literals overwritten by spaces as well.
    pub(super) code: String,
    /// Full paths of everything that the code refers to.
    pub(super) paths: Vec<String>,
    /// Whether the header of the file says that the module is pure.
    says_pure: bool,
}

/// All of them but those of tests.
pub(super) fn sources() -> Vec<Source> {
    let texts = texts_below("src", &["rs"]);
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
        let production = lexer::production(text);
        let code = lexer::code(&production);
        let module = match module(path) {
            "lib" => "crate".to_owned(),
            below => format!("crate::{}", below.replace('/', "::")),
        };
        Self {
            path: path.to_owned(),
            paths: named(&code, &module),
            module,
            text: production,
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

/// Returns the sources that say that they are pure, and all modules below them.
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
        let declared = ["", "pub ", "pub(crate) ", "pub(super) "].contains(&name.0);
        let beside = Path::new(folder).parent().expect("a folder");
        declared.then(|| {
            elsewhere.map_or(format!("{folder}/{}", name.1), |file| {
                module(&beside.join(file).to_string_lossy()).to_owned()
            })
        })
    });
    named.collect()
}

/// Returns path below `folder` and text of each file with one of these extensions, sorted by path.
/// The extension of a file without one is empty. What is built or installed (folders named `target`
/// and `node_modules`) and hidden folders are skipped.
pub(super) fn texts_below(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let root = root().join(folder);
    let mut files = Vec::new();
    collect(&root, extensions, &mut files);
    files.sort();
    let text = |file: &PathBuf| {
        let path = file
            .strip_prefix(&root)
            .expect("below the folder")
            .to_string_lossy()
            .into_owned();
        (path, fs::read_to_string(file).expect("a text file"))
    };
    files.iter().map(text).collect()
}

/// Returns the root folder of the project.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if name == "target" || name == "node_modules" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, files);
        } else if extensions.contains(&extension) {
            files.push(path);
        }
    }
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
