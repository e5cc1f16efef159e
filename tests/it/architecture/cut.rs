//! Finds the functions in a source, with their signatures and sizes. Sizes are in tokens as
//! `paths.rs` cuts them, without comments and literals: a name, a number, `::` and any other
//! character that is no space are one token each. Pure.

use super::{
    lexer::line_at,
    paths::{is_name, offset, tokens},
};

/// Limit for the tokens between the braces of an accessor; `self.scaling.as_ref()` has seven.
const ACCESSOR_TOKENS_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    Private,
    /// `pub(super)` or `pub(in path)`.
    Restricted,
    Crate,
    Public,
}

/// A function that has a body.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) visibility: Visibility,
    pub(super) is_async: bool,
    /// Offset of the visibility, or of the first keyword if the function is private.
    pub(super) start: usize,
    pub(super) line: usize,
    pub(super) lines: usize,
    /// Tokens from `fn` to the closing brace.
    pub(super) tokens: usize,
    /// Name and type of each parameter. The type of `self` is empty.
    pub(super) parameters: Vec<(String, String)>,
    /// The text from the arrow to the body, without spaces.
    pub(super) returned: String,
    kind: FunctionKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FunctionKind {
    /// One expression that starts with `self` and has at most [`ACCESSOR_TOKENS_MAX`] tokens, in a
    /// function without other parameters.
    Accessor,
    /// One `match` is the whole body.
    Table,
    Other,
}

impl Function {
    pub(super) fn is_accessor(&self) -> bool {
        self.kind == FunctionKind::Accessor
    }

    pub(super) fn bools(&self) -> impl Iterator<Item = &str> {
        self.parameters
            .iter()
            .filter(|(_, kind)| kind == "bool")
            .map(|(name, _)| name.as_str())
    }

    /// Whether the function has more lines than `lines_max` and is not a table.
    pub(super) fn is_longer_than(&self, lines_max: usize) -> bool {
        self.lines > lines_max && self.kind != FunctionKind::Table
    }
}

/// Returns all functions with a body, nested ones included. `code` has no comments and literals.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let tokens = Tokens {
        code,
        all: tokens(code),
    };
    (0..tokens.all.len())
        .filter_map(|at| tokens.function(at))
        .collect()
}

struct Tokens<'c> {
    code: &'c str,
    all: Vec<&'c str>,
}

impl<'c> Tokens<'c> {
    fn is(&self, at: usize, token: &str) -> bool {
        self.all.get(at) == Some(&token)
    }

    fn offset(&self, at: usize) -> usize {
        offset(self.code, self.all[at])
    }

    /// Returns the function whose keyword `fn` is at `at`, if it has a name and a body.
    fn function(&self, at: usize) -> Option<Function> {
        let name = *self
            .all
            .get(at + 1)
            .filter(|name| self.is(at, "fn") && is_name(name))?;
        let open = if self.is(at + 2, "<") {
            self.after_angles(at + 2)
        } else {
            at + 2
        };
        let close = self.closing(open)?;
        let body = self.body(close + 1)?;
        let end = self.closing(body)?;
        let (first, visibility) = self.visibility(self.before_modifiers(at));
        let parameters = self.parameters(open + 1, close);
        let (start, line) = (self.offset(first), line_at(self.code, self.offset(at)));
        Some(Function {
            name: name.to_owned(),
            visibility,
            is_async: self.all[first..at].contains(&"async"),
            start,
            line,
            lines: line_at(self.code, self.offset(end)) - line + 1,
            tokens: end + 1 - at,
            kind: self.kind(body, end, &parameters),
            parameters,
            returned: self.all[close + 1..body].concat(),
        })
    }

    /// Steps back over `async`, `const`, `unsafe` and `extern` before the `fn` at `at`.
    fn before_modifiers(&self, mut at: usize) -> usize {
        while at > 0 && ["async", "const", "unsafe", "extern"].contains(&self.all[at - 1]) {
            at -= 1;
        }
        at
    }

    /// Returns where the item begins whose keywords begin at `at`, and its visibility.
    fn visibility(&self, at: usize) -> (usize, Visibility) {
        if at > 0 && self.is(at - 1, "pub") {
            return (at - 1, Visibility::Public);
        }
        let open = (0..at).rev().find(|open| self.is(*open, "("));
        match open {
            Some(open)
                if open > 0 && self.is(open - 1, "pub") && self.closing(open) == Some(at - 1) =>
            {
                let is_crate = self.is(open + 1, "crate");
                (
                    open - 1,
                    if is_crate {
                        Visibility::Crate
                    } else {
                        Visibility::Restricted
                    },
                )
            }
            _ => (at, Visibility::Private),
        }
    }

    /// Returns the position of the bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        for (at, token) in self.all.iter().enumerate().skip(open) {
            match *token {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }

    /// Returns the position after the `>` that closes the `<` at `open`.
    fn after_angles(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.all.len() {
            depth += self.angle(at);
            if depth == 0 {
                return at + 1;
            }
        }
        self.all.len()
    }

    /// Returns 1 if generics open at `at` and -1 if they close there. The `>` of an arrow is 0.
    fn angle(&self, at: usize) -> i32 {
        match self.all[at] {
            "<" => 1,
            ">" if !self.is(at - 1, "-") => -1,
            _ => 0,
        }
    }

    /// Returns the position of the brace that opens the body; `at` is after the parameters.
    fn body(&self, mut at: usize) -> Option<usize> {
        loop {
            match *self.all.get(at)? {
                "{" => return Some(at),
                ";" => return None,
                "(" | "[" => at = self.closing(at)? + 1,
                _ => at += 1,
            }
        }
    }

    fn parameters(&self, start: usize, end: usize) -> Vec<(String, String)> {
        let mut parameters = Vec::new();
        let (mut from, mut depth) = (start, 0);
        for at in start..=end {
            match self.all[at] {
                "," if depth == 0 => {
                    parameters.extend(self.parameter(from, at));
                    from = at + 1;
                }
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => depth += self.angle(at),
            }
        }
        parameters.extend(self.parameter(from, end));
        parameters
    }

    /// Returns name and type of the parameter between two commas.
    fn parameter(&self, from: usize, end: usize) -> Option<(String, String)> {
        let tokens = &self.all[from..end];
        let colon = tokens
            .iter()
            .position(|token| *token == ":")
            .unwrap_or(tokens.len());
        let kind = tokens.get(colon + 1..).unwrap_or_default();
        (!tokens.is_empty()).then(|| (tokens[..colon].concat(), kind.concat()))
    }

    fn kind(&self, open: usize, close: usize, parameters: &[(String, String)]) -> FunctionKind {
        let body = &self.all[open + 1..close];
        let body_of_match = (open + 1..close).find(|at| self.is(*at, "{"));
        if body.first() == Some(&"match")
            && body_of_match.and_then(|open| self.closing(open)) == Some(close - 1)
        {
            return FunctionKind::Table;
        }
        let has_statement = body.iter().any(|token| [";", "{", "|"].contains(token));
        let starts_with_self =
            body.iter().find(|token| !["&", "mut", "*"].contains(token)) == Some(&"self");
        if starts_with_self
            && !has_statement
            && body.len() <= ACCESSOR_TOKENS_MAX
            && parameters.len() == 1
        {
            return FunctionKind::Accessor;
        }
        FunctionKind::Other
    }
}

#[test]
fn a_function_is_cut_from_its_signature_to_its_brace() {
    let code = "impl<T> A for B<T> {\n\
        pub(crate) const fn a<F: Fn(u8) -> bool>(&self, f: F, (b, c): (u8, bool), d: bool)\n\
        -> [u8; 2]\n\
        where F: Sync {\n let x = 1;\n [x, 2]\n}\n\
        pub(super) async fn b(self) -> Result<(), E> { self.e }\n\
        fn c(&self) -> &D { &self.d.e }\n\
        fn d();\n\
        pub fn e(f: fn(bool) -> u8) -> u8 { match f(true) { 1 => 2, _ => { 3 } } }\n}";
    let functions = functions(code);
    let names: Vec<&str> = functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c", "e"]);

    let [a, b, c, e] = functions.as_slice() else {
        panic!("four of them")
    };
    assert_eq!((a.line, a.lines, a.visibility), (2, 6, Visibility::Crate));
    let kinds: Vec<&str> = a.parameters.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["", "F", "(u8,bool)", "bool"]);
    assert_eq!(a.bools().collect::<Vec<_>>(), ["d"]);
    assert!(code[a.start..].starts_with("pub(crate) const fn a"));

    assert_eq!(
        (b.is_async, b.visibility, b.returned.as_str()),
        (true, Visibility::Restricted, "->Result<(),E>")
    );
    assert_eq!(
        b.tokens,
        "fn b ( self ) - > Result < ( ) , E > { self . e }"
            .split(' ')
            .count()
    );
    assert_eq!(
        [a.kind, b.kind, c.kind, e.kind].map(|kind| kind == FunctionKind::Accessor),
        [false, true, true, false]
    );
    assert_eq!(
        (e.kind, e.visibility, e.bools().count()),
        (FunctionKind::Table, Visibility::Public, 0)
    );
}
