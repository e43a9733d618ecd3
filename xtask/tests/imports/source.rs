//! What one source file declares, names and re-exports: read from its tokens, so that comments and strings don't count.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of modules and names, `crate` for the first where it is absolute.
pub(crate) type Path = Vec<String>;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Every path that its code names, and in which module it stands (inline modules are part of their file).
    pub(crate) named: Vec<(Path, Path)>,
    /// What `use` brings in, by the name that it has here, and in which module that stands.
    pub(crate) aliases: BTreeMap<String, (Path, Path)>,
    /// The aliases among them that are only passed on: `pub use`, and not used here.
    pub(crate) passed_on: BTreeSet<String>,
    /// Modules brought in whole: `use x::*`.
    pub(crate) globs: Vec<(Path, Path)>,
    /// Names of items.
    pub(crate) items: BTreeSet<String>,
    /// Child modules that are compiled in tests alone.
    pub(crate) test_modules: Vec<Path>,
    /// Words outside of `use`.
    words: BTreeSet<String>,
}

impl Source {
    /// Reads `text`, the file of module `module`.
    pub(crate) fn read(module: &[String], text: &str) -> Self {
        let tokens = TokenStream::from_str(text).expect("the compiler takes it, so it is made of tokens");
        let mut source = Self::default();
        source.walk(module, &trees(tokens));
        let words = std::mem::take(&mut source.words);
        source.passed_on.retain(|alias| !words.contains(alias));
        source
    }

    fn walk(&mut self, module: &[String], tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(module, tokens, at);
        }
    }

    /// Takes what begins at `at`; returns where it ends.
    fn step(&mut self, module: &[String], tokens: &[TokenTree], at: usize) -> usize {
        match &tokens[at] {
            TokenTree::Punct(hash) if hash.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                self.skip_test_item(module, tokens, at + 2)
            }
            // `::std::…`, or what follows a turbofish: nothing of ours.
            TokenTree::Punct(_) if is_path_separator(tokens, at) => at + 3,
            TokenTree::Group(group) => {
                self.walk(module, &trees(group.stream()));
                at + 1
            }
            TokenTree::Ident(ident) => self.word(module, tokens, at, &ident.to_string()),
            _ => at + 1,
        }
    }

    fn word(&mut self, module: &[String], tokens: &[TokenTree], at: usize, word: &str) -> usize {
        match word {
            "pub" => {
                // `pub(in crate::x)` names an ancestor and imports nothing.
                let at = at + 1 + usize::from(is_group(tokens.get(at + 1), Delimiter::Parenthesis));
                match tokens.get(at) {
                    Some(TokenTree::Ident(next)) if next == "use" => self.import(module, tokens, at + 1, true),
                    _ => at,
                }
            }
            "use" => self.import(module, tokens, at + 1, false),
            "mod" => match (tokens.get(at + 1), tokens.get(at + 2)) {
                (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => {
                    self.walk(&child(module, &name.to_string()), &trees(body.stream()));
                    at + 3
                }
                _ => at + 2,
            },
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                    self.items.insert(name.to_string());
                }
                at + 1
            }
            _ => {
                let (path, end) = path(tokens, at);
                self.words.insert(path[0].clone());
                if path.len() > 1 {
                    self.named.push((module.to_vec(), path));
                }
                end
            }
        }
    }

    /// A `use` whose tree begins at `at`; returns where its `;` was.
    fn import(&mut self, module: &[String], tokens: &[TokenTree], at: usize, passed_on: bool) -> usize {
        let end = (at..tokens.len())
            .find(|&end| is_punct(tokens.get(end), ';'))
            .unwrap_or(tokens.len());
        self.tree(module, &[], &tokens[at..end], passed_on);
        end + 1
    }

    /// One tree of a `use`, under `prefix`.
    fn tree(&mut self, module: &[String], prefix: &[String], tokens: &[TokenTree], passed_on: bool) {
        let mut full = prefix.to_vec();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) if word == "self" && !full.is_empty() => {}
                TokenTree::Ident(word) => full.push(word.to_string()),
                TokenTree::Punct(star) if star.as_char() == '*' => {
                    self.globs.push((module.to_vec(), full));
                    return;
                }
                TokenTree::Group(group) => {
                    let branches = trees(group.stream());
                    let branches = branches.split(|token| is_punct(Some(token), ','));
                    // After a trailing comma there is none.
                    for branch in branches.filter(|branch| !branch.is_empty()) {
                        self.tree(module, &full, branch, passed_on);
                    }
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        let renamed = match tokens.get(at + 1) {
            Some(TokenTree::Ident(name)) => Some(name.to_string()),
            _ => None,
        };
        if let Some(name) = renamed.or_else(|| full.last().cloned()) {
            if passed_on {
                self.passed_on.insert(name.clone());
            }
            self.aliases.insert(name, (module.to_vec(), full));
        }
    }

    /// An item under `#[cfg(test)]`, from `at` on: what it imports says nothing of the crate.
    fn skip_test_item(&mut self, module: &[String], tokens: &[TokenTree], at: usize) -> usize {
        let mut end = at;
        while end < tokens.len() && !is_punct(tokens.get(end), ';') && !is_group(tokens.get(end), Delimiter::Brace) {
            if let (TokenTree::Ident(word), Some(TokenTree::Ident(name))) = (&tokens[end], tokens.get(end + 1))
                && word == "mod"
            {
                self.test_modules.push(child(module, &name.to_string()));
            }
            end += 1;
        }
        end + 1
    }
}

/// The module `name` in `module`.
pub(crate) fn child(module: &[String], name: &str) -> Path {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// `a::b::c` from `at` on, and where it ends.
fn path(tokens: &[TokenTree], at: usize) -> (Path, usize) {
    let mut path = vec![tokens[at].to_string()];
    let mut end = at + 1;
    while is_path_separator(tokens, end)
        && let Some(TokenTree::Ident(name)) = tokens.get(end + 2)
    {
        path.push(name.to_string());
        end += 3;
    }
    (path, end)
}

fn trees(tokens: TokenStream) -> Vec<TokenTree> {
    tokens.into_iter().collect()
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    let words = |token: &TokenTree| token.to_string().split_whitespace().collect::<String>();
    token.is_some_and(|token| words(token) == "[cfg(test)]")
}
