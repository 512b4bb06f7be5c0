//! Tokens of the text form, each with its line and column.
//!
//! A path after `;` reaches to the end of its line. Nothing is refused here: a character that
//! begins no token becomes one, and the reader says what it expected instead.

use std::fmt;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, dots included: `h.w`, `all_to_all`.
    Word(&'a str),
    /// What begins like a number: `13`, `-1e-5`.
    Number(&'a str),
    /// A quoted text, without quotes and escapes.
    Quoted(String),
    /// A node: `%4`.
    Node(&'a str),
    /// The path after `;`.
    Path(String),
    /// Any other character.
    Mark(char),
    /// A quoted text that its line does not end.
    Open,
    /// End of a line.
    EndOfLine,
    /// End of the text.
    EndOfText,
}

/// A token and where it stands, counted from one.
#[derive(Clone, Debug)]
pub(super) struct Spanned<'a> {
    pub token: Token<'a>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Number(text) => write!(f, "`{text}`"),
            Self::Quoted(text) => write!(f, "{text:?}"),
            Self::Node(number) => write!(f, "`%{number}`"),
            Self::Path(path) => write!(f, "the path `{path}`"),
            Self::Mark(mark) => write!(f, "`{mark}`"),
            Self::Open => f.write_str("a quotation without end"),
            Self::EndOfLine => f.write_str("the end of the line"),
            Self::EndOfText => f.write_str("the end of the text"),
        }
    }
}

/// Whether a name can be written without quotes.
pub(crate) fn is_word(name: &str) -> bool {
    name.starts_with(begins_word) && name.chars().all(continues_word)
}

/// All tokens; the last one is the end of the text. Empty lines leave no token.
pub(super) fn tokens(text: &str) -> Vec<Spanned<'_>> {
    let mut tokens = Vec::new();
    let mut last = 0;
    for (index, line) in text.lines().enumerate() {
        last = index + 1;
        let before = tokens.len();
        let end = lex_line(line, last, &mut tokens);
        if tokens.len() > before {
            tokens.push(Spanned {
                token: Token::EndOfLine,
                line: last,
                column: end,
            });
        }
    }
    tokens.push(Spanned {
        token: Token::EndOfText,
        line: last + 1,
        column: 1,
    });
    tokens
}

/// Adds the tokens of a line and returns the column after its last character.
fn lex_line<'a>(text: &'a str, line: usize, tokens: &mut Vec<Spanned<'a>>) -> usize {
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let length = if first == ' ' || first == '\t' {
            1
        } else {
            let (token, length) = lex(first, rest);
            tokens.push(Spanned {
                token,
                line,
                column,
            });
            length
        };
        let (taken, left) = rest.split_at(length);
        column += taken.chars().count();
        rest = left;
    }
    column
}

/// The token at the start of `rest` and its length in bytes.
fn lex(first: char, rest: &str) -> (Token<'_>, usize) {
    let inside = &rest[first.len_utf8()..];
    let run = |continues: fn(char) -> bool| {
        first.len_utf8() + inside.find(|c| !continues(c)).unwrap_or(inside.len())
    };
    if begins_word(first) {
        let end = run(continues_word);
        (Token::Word(&rest[..end]), end)
    } else if first.is_ascii_digit() || matches!(first, '-' | '+') {
        let end = run(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        (Token::Number(&rest[..end]), end)
    } else if first == '%' {
        let end = run(|c| c.is_ascii_digit());
        (Token::Node(&rest[1..end]), end)
    } else if first == ';' {
        let path = inside.strip_prefix(' ').unwrap_or(inside);
        (Token::Path(unescape(path)), rest.len())
    } else if first == '"' {
        quoted(inside)
    } else {
        (Token::Mark(first), first.len_utf8())
    }
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

fn quoted(inside: &str) -> (Token<'_>, usize) {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if c == '"' && !escaped {
            return (Token::Quoted(unescape(&inside[..at])), at + 2);
        }
        escaped = c == '\\' && !escaped;
    }
    (Token::Open, inside.len() + 1)
}

/// Writes a text so that it stays on its line: `\\`, `\"` and `\u{..}` for control characters.
pub(super) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
}

/// The inverse of [`escape`]; a backslash that begins no escape stands for what follows it.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = rest.as_str().strip_prefix("u{").and_then(|r| {
            let (digits, after) = r.split_once('}')?;
            let code = u32::from_str_radix(digits, 16).ok()?;
            Some((char::from_u32(code)?, after))
        });
        match code {
            Some((c, after)) => {
                out.push(c);
                rest = after.chars();
            }
            None => out.extend(rest.next()),
        }
    }
    out
}
