//! Reads Rust source as far as the rules need: what is code, and where functions begin and end.

/// The text with comments and the contents of literals replaced by spaces; lines stay where they are.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let length = other(&chars[at..], at.checked_sub(1).map(|before| chars[before]));
        if length == 0 {
            out.push(chars[at]);
            at += 1;
        } else {
            let blank = |&c: &char| if c == '\n' { '\n' } else { ' ' };
            out.extend(chars[at..at + length].iter().map(blank));
            at += length;
        }
    }
    out
}

/// Length of the comment or literal that begins here, 0 when none does.
fn other(chars: &[char], before: Option<char>) -> usize {
    let word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match chars {
        ['/', '/', ..] => until(chars, |rest| rest[0] == '\n'),
        ['/', '*', ..] => block_comment(chars),
        ['"', ..] => quoted(chars, '"'),
        ['r', '"' | '#', ..] if !word => raw(chars, 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !word => raw(chars, 2),
        ['\'', '\\', ..] => quoted(chars, '\''),
        // Anything else after a quote is a lifetime.
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn until(chars: &[char], end: impl Fn(&[char]) -> bool) -> usize {
    (0..chars.len())
        .find(|&at| end(&chars[at..]))
        .unwrap_or(chars.len())
}

fn block_comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match &chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            [] => return at,
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

fn quoted(chars: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A raw string whose hashes begin at `start`; a raw identifier is none.
fn raw(chars: &[char], start: usize) -> usize {
    let hashes = until(&chars[start..], |rest| rest[0] != '#');
    if chars.get(start + hashes) != Some(&'"') {
        return 0;
    }
    let content = start + hashes + 1;
    let end = until(&chars[content..], |rest| {
        rest[0] == '"' && rest[1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    });
    (content + end + 1 + hashes).min(chars.len())
}

/// A function: its name, its first line from 1, and its lines from `fn` to the closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Functions with a body, in order; the text is that of [`code`].
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
        let name: String = code[at + 3..].chars().take_while(is_word).collect();
        if let Some(length) = body_end(&code[at..]).filter(|_| !name.is_empty()) {
            found.push(Function {
                name,
                line: 1 + code[..at].matches('\n').count(),
                lines: 1 + code[at..at + length].matches('\n').count(),
            });
        }
    }
    found
}

/// Bytes from `fn` to the closing brace; nothing for a function without a body.
fn body_end(code: &str) -> Option<usize> {
    let (mut groups, mut braces) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => groups += 1,
            ')' | ']' => groups -= 1,
            ';' if groups == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && groups == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// A `match`: its line from 1, and the patterns of its arms.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    pub line: usize,
    pub patterns: Vec<String>,
}

/// All matches, in order; the text is that of [`code`].
pub fn matches(code: &str) -> Vec<Match> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("match ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some((end, start)) = body_end(&code[at..]).zip(code[at..].find('{')) else {
            continue;
        };
        found.push(Match {
            line: 1 + code[..at].matches('\n').count(),
            patterns: patterns(&code[at + start + 1..at + end]),
        });
    }
    found
}

/// What stands before the `=>` of each arm.
fn patterns(arms: &str) -> Vec<String> {
    let (mut found, mut depth, mut start, mut in_pattern) = (Vec::new(), 0, 0, true);
    for (at, c) in arms.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        let block = c == '}' && arms[start..].trim_start().starts_with('{');
        if depth == 0 && in_pattern && arms[at..].starts_with("=>") {
            found.push(arms[start..at].trim().to_owned());
            (start, in_pattern) = (at + 2, false);
        } else if depth == 0 && !in_pattern && (c == ',' || block) {
            (start, in_pattern) = (at + 1, true);
        }
    }
    // A comma after a block belongs to the arm before.
    found
        .iter()
        .map(|pattern| pattern.trim_start_matches(',').trim_start().to_owned())
        .collect()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* { /* } */ */ b // {\n\"{\\\"\" 'x' '\\'' &'a str r#\"}\"# br\"{\" for_r\"}\"";
    let kept: String = code(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(kept, "a b &'a str for_r");
}

#[test]
fn functions_are_found_with_their_lengths() {
    let text = "trait T { fn a(x: [u8; 2]); }\npub fn b<F: Fn(u8)>() -> [u8; 1] {\n  let f: fn(u8);\n  { '}' }\n}\nfn c() {}";
    let found = functions(&code(text));
    let expected = [("b", 2, 4), ("c", 6, 1)].map(|(name, line, lines)| Function {
        name: name.to_owned(),
        line,
        lines,
    });
    assert_eq!(found, expected);
}

#[test]
fn patterns_of_matches_are_found() {
    let text =
        "match a { B::C { d, .. } => { match e { _ => 1 } } B::D(x) if x => [f, g], _ => h, }";
    let found = matches(&code(text));
    assert_eq!(found[0].patterns, ["B::C { d, .. }", "B::D(x) if x", "_"]);
    assert_eq!(found[1].patterns, ["_"]);
}
