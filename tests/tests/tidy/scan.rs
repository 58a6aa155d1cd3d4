//! Rust sources as plain code: enough of a scanner to count lines, functions and paths, without parsing.

/// Replaces the content of comments, strings and characters by blanks.
pub(crate) fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        let end = literal_end(&chars, at);
        match chars.get(at..end) {
            Some(literal) if end > at => {
                code.extend(literal.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            _ => {
                code.push(*c);
                at += 1;
            }
        }
    }
    code
}

/// Where the comment, string or character that begins at `at` ends; `at` if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let char_at = |offset: usize| chars.get(at + offset).copied();
    let find = |from: usize, wanted: char| {
        (from..chars.len()).find(|i| chars.get(*i) == Some(&wanted)).map_or(chars.len(), |i| i + 1)
    };
    match (char_at(0), char_at(1)) {
        (Some('/'), Some('/')) => find(at, '\n').saturating_sub(1).max(at + 2),
        (Some('/'), Some('*')) => comment_end(chars, at),
        (Some('"'), _) => string_end(chars, at + 1),
        (Some('\''), Some('\\')) => find(at + 3, '\''),
        // Otherwise a lifetime.
        (Some('\''), Some(_)) if char_at(2) == Some('\'') => at + 3,
        (Some('r'), Some('#' | '"')) => raw_string_end(chars, at),
        _ => at,
    }
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match chars.get(at..at + 2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) if depth == 1 => return at + 2,
            Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while let Some(c) = chars.get(at) {
        match c {
            '"' => return at + 1,
            '\\' => at += 2,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r#"…"#` with any number of hashes; `at` for a raw name such as `r#type`.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let closes = |i: &usize| {
        chars.get(*i) == Some(&'"') && chars.iter().skip(i + 1).take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (at + 2 + hashes..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// Names, keywords and numbers with their places.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code.get(at..)?.find(is_word)?;
        let length = code.get(start..)?.find(|c| !is_word(c)).unwrap_or(code.len() - start);
        at = start + length;
        Some((start, code.get(start..at)?))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// The end of the block whose brace is at `open`.
fn block_end(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code.get(open..)?.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(open + at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Lines before an inline test module that ends the file, and lines of that.
pub(crate) fn code_and_test_lines(code: &str) -> (usize, usize) {
    let all = code.lines().count();
    let before = test_module(code).map_or(all, |start| code.split_at(start).0.lines().count());
    (before, all - before)
}

/// Where the inline test module starts that ends the file.
pub(crate) fn test_module(code: &str) -> Option<usize> {
    let ends_file = |start: &usize| {
        let rest = code.split_at(*start).1;
        let Some(module) = words(rest).find(|(at, word)| *word == "mod" && !is_attribute(rest, *at)) else {
            return false;
        };
        let Some(open) = rest.find('{').filter(|open| *open > module.0) else { return false };
        let declared = rest.get(module.0..open).is_some_and(|head| !head.contains(';'));
        declared && block_end(rest, open).is_some_and(|end| rest.split_at(end).1.trim().is_empty())
    };
    code.match_indices("#[cfg(test)]").map(|(start, _)| start).find(ends_file)
}

/// Whether a place is inside square brackets.
fn is_attribute(code: &str, at: usize) -> bool {
    let before = code.split_at(at).0;
    before.matches('[').count() > before.matches(']').count()
}

/// A function with a body.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

pub(crate) fn functions(code: &str) -> Vec<Function<'_>> {
    let starts: Vec<usize> = words(code).filter(|(_, word)| *word == "fn").map(|(at, _)| at).collect();
    starts.into_iter().filter_map(|at| function(code, at)).collect()
}

/// The function whose `fn` is at `start`; none for a pointer type or a declaration without a body.
fn function(code: &str, start: usize) -> Option<Function<'_>> {
    let rest = code.get(start + 2..)?;
    let (at, name) = words(rest).next().filter(|(at, _)| rest.split_at(*at).0.trim().is_empty())?;
    let signature = start + 2 + at;
    let mut depth = 0;
    let mut body = None;
    for (at, c) in code.get(signature..)?.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => {
                body = Some(signature + at);
                break;
            }
            ';' if depth == 0 => break,
            _ => {}
        }
    }
    let end = block_end(code, body?)?;
    Some(Function { name, line: line_of(code, start), lines: line_of(code, end) - line_of(code, start) + 1 })
}

/// First parts of paths, and what stands after `use`: crates among them.
pub(crate) fn crate_roots(code: &str) -> Vec<(usize, &str)> {
    let is_root = |at: usize, word: &str| {
        let (before, after) = (code.split_at(at).0.trim_end(), code.split_at(at + word.len()).1.trim_start());
        let leading = before.strip_suffix("::").map(str::trim_end);
        let inner = leading.is_some_and(|b| b.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>'));
        let used = ["use", "crate"].iter().any(|k| words_end_with(before, k));
        !inner && (after.starts_with("::") || used)
    };
    words(code).filter(|(at, word)| is_root(*at, word)).map(|(at, word)| (line_of(code, at), word)).collect()
}

fn words_end_with(code: &str, keyword: &str) -> bool {
    let rest = code.strip_suffix(keyword);
    rest.is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// How many `super` lead from a file to the crate's root.
pub(crate) fn module_depth(inside: &str) -> usize {
    inside.trim_end_matches("/mod.rs").split('/').count()
}

/// Modules at the crate's root that paths name: `crate::a`, `crate::{a, b::c}`, and `super::a` from the right depth.
pub(crate) fn modules_used(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let mut used = Vec::new();
    for (at, word) in words(code).filter(|(at, _)| !code.split_at(*at).0.trim_end().ends_with("::")) {
        let mut rest = code.split_at(at + word.len()).1;
        let mut levels = usize::from(word == "super");
        while let Some(next) = rest.trim_start().strip_prefix("::").and_then(|r| r.trim_start().strip_prefix("super")) {
            levels += 1;
            rest = next;
        }
        if (word == "crate" && levels == 0) || (word == "super" && levels == depth) {
            used.extend(first_segments(rest).into_iter().map(|name| (line_of(code, at), name)));
        }
    }
    used
}

/// What follows `::`: one name, or the first names of a group's paths.
fn first_segments(rest: &str) -> Vec<&str> {
    let Some(path) = rest.trim_start().strip_prefix("::").map(str::trim_start) else { return Vec::new() };
    if !path.starts_with('{') {
        return words(path).next().filter(|(at, _)| *at == 0).map(|(_, name)| name).into_iter().collect();
    }
    let group = path.split_at(block_end(path, 0).unwrap_or(path.len())).0;
    let is_first = |at: &usize| {
        let before = group.split_at(*at).0;
        let depth = before.matches('{').count() - before.matches('}').count();
        depth == 1 && before.trim_end().ends_with(['{', ','])
    };
    words(group).filter(|(at, _)| is_first(at)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blank() {
        let quote = '"';
        let text = format!(
            "a {quote}{{ \\{quote} }}{quote} b // {{\n/* {{ /* }} */ */ c '{{' '\\'' 'x d r#{quote}}}{quote}# e r#fn f"
        );
        let code = blanked(&text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "'x", "d", "e", "r#fn", "f"]);
        assert_eq!((code.chars().count(), code.lines().count()), (text.chars().count(), 2));
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_text() {
        for text in ["a \"b", "a /* b", "a r#\"b\"", "a '\\"] {
            assert_eq!(blanked(text).trim(), "a", "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code =
            "struct A;\nfn one(a: [u8; 2]) -> B\nwhere\n    C: D,\n{\n    if x {\n    }\n}\nfn no();\ntype F = fn(u8);";
        let found: Vec<_> = functions(code).iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one", 2, 7)]);
    }

    #[test]
    fn functions_inside_functions_are_found() {
        let found: Vec<_> = functions("fn a() {\n fn b() {}\n}").iter().map(|f| (f.name, f.lines)).collect();
        assert_eq!(found, [("a", 3), ("b", 1)]);
    }

    #[test]
    fn only_a_test_module_that_ends_the_file_is_counted_apart() {
        let test = "#[cfg(test)]\n#[expect(lint)]\nmod tests {\n}\n";
        assert_eq!(code_and_test_lines(&format!("a\n{test}")), (1, 4));
        assert_eq!(code_and_test_lines(&format!("{test}a\n")), (5, 0));
        assert_eq!(code_and_test_lines("#[cfg(test)]\nmod tests;\nfn a() {\n}\n"), (4, 0));
        assert_eq!(code_and_test_lines("#[cfg(test)]\nuse a;\nfn b() {\n}\n"), (4, 0));
    }

    #[test]
    fn crate_roots_are_found_in_use_and_in_paths() {
        let code =
            "use tokio::a;\nuse b::{tokio::c};\nlet d = arrow::e::f(::g::h, i::arrow::j);\nextern crate k;\nuse l;";
        let found = crate_roots(code);
        for wanted in [(1, "tokio"), (3, "arrow"), (3, "g"), (4, "k"), (5, "l")] {
            assert!(found.contains(&wanted), "{wanted:?} is not in {found:?}");
        }
        let arrows = found.iter().filter(|(_, root)| *root == "arrow").count();
        assert_eq!(arrows, 1, "a module named like a crate is no crate: {found:?}");
    }

    #[test]
    fn modules_are_found_through_groups_and_super() {
        let used = |code, depth| modules_used(code, depth).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(used("use crate::{plan::{a, b}, wire, A};", 1), ["plan", "wire", "A"]);
        assert_eq!(used("pub(crate) fn a() { crate::plan::b() }", 1), ["plan"]);
        assert_eq!(used("use super::super::plan;", 2), ["plan"]);
        assert_eq!(used("use super::plan;", 2), Vec::<&str>::new());
        assert_eq!(used("use super::{plan, wire};", 1), ["plan", "wire"]);
        assert_eq!(used("a::crate_of::plan(b)", 1), Vec::<&str>::new());
    }

    #[test]
    fn depth_counts_modules_below_the_root() {
        let depths = ["codec.rs", "codec/mod.rs", "codec/scan.rs", "a/b/mod.rs"].map(module_depth);
        assert_eq!(depths, [1, 1, 2, 2]);
    }
}
