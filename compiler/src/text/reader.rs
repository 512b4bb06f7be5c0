//! The reader: a cursor over tokens that says where it stood, what it expected and what it found.

use super::lex::{Spanned, Token, tokens};
use super::value::Value;
use crate::CompileError;
use crate::ir::{Sharding, Type};
use crate::ops::Presence;

/// A cursor over the tokens of a text.
pub(super) struct Reader<'a> {
    tokens: Vec<Spanned<'a>>,
    at: usize,
}

/// A place in the text, for errors that are known later.
#[derive(Clone, Copy)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl Place {
    pub fn error(self, expected: impl Into<String>, found: impl Into<String>) -> CompileError {
        CompileError::Text {
            line: self.line,
            column: self.column,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            tokens: tokens(text),
            at: 0,
        }
    }

    pub fn peek(&self) -> &Token<'a> {
        &self.spanned(0).token
    }

    /// The token after the next one.
    fn after(&self) -> &Token<'a> {
        &self.spanned(1).token
    }

    fn spanned(&self, ahead: usize) -> &Spanned<'a> {
        let last = self.tokens.len() - 1;
        &self.tokens[last.min(self.at + ahead)]
    }

    pub fn place(&self) -> Place {
        let Spanned { line, column, .. } = *self.spanned(0);
        Place { line, column }
    }

    pub fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    /// The error that the next token is not what is expected.
    pub fn wrong(&self, expected: impl Into<String>) -> CompileError {
        self.place().error(expected, self.peek().to_string())
    }

    pub fn take(&mut self, mark: char) -> bool {
        let taken = *self.peek() == Token::Mark(mark);
        self.at += usize::from(taken);
        taken
    }

    pub fn expect(&mut self, mark: char) -> Result<(), CompileError> {
        if self.take(mark) {
            return Ok(());
        }
        Err(self.wrong(format!("`{mark}`")))
    }

    pub fn end_of_line(&mut self) -> Result<(), CompileError> {
        if *self.peek() == Token::EndOfLine {
            self.at += 1;
            return Ok(());
        }
        Err(self.wrong("the end of the line"))
    }

    pub fn take_word(&mut self, word: &str) -> bool {
        let taken = *self.peek() == Token::Word(word);
        self.at += usize::from(taken);
        taken
    }

    pub fn expect_word(&mut self, word: &str) -> Result<(), CompileError> {
        if self.take_word(word) {
            return Ok(());
        }
        Err(self.wrong(format!("`{word}`")))
    }

    /// Any word; `what` names it in the error.
    pub fn word(&mut self, what: &str) -> Result<&'a str, CompileError> {
        let Token::Word(word) = *self.peek() else {
            return Err(self.wrong(what));
        };
        self.at += 1;
        Ok(word)
    }

    /// One of several words, each with its meaning.
    pub fn word_of<T: Clone>(&mut self, words: &[(&str, T)]) -> Result<T, CompileError> {
        for (word, meaning) in words {
            if self.take_word(word) {
                return Ok(meaning.clone());
            }
        }
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(self.wrong(words.join(" or ")))
    }

    pub fn value<T: Value>(&mut self) -> Result<T, CompileError> {
        T::read(self)
    }

    /// `key=value`.
    pub fn key<T: Value>(&mut self, key: &str) -> Result<T, CompileError> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None => Err(self.wrong(format!("`{key}=`"))),
        }
    }

    /// `key=value`, or nothing.
    pub fn optional<T: Value>(&mut self, key: &str) -> Result<Option<T>, CompileError> {
        if *self.peek() != Token::Word(key) || *self.after() != Token::Mark('=') {
            return Ok(None);
        }
        self.at += 2;
        self.value().map(Some)
    }

    /// The word that says that an optional operand is there, or nothing.
    pub fn flag(&mut self, word: &str) -> Presence {
        if self.take_word(word) {
            Presence::Present
        } else {
            Presence::Absent
        }
    }

    /// Items between brackets, separated by commas.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, CompileError>,
    ) -> Result<Vec<T>, CompileError> {
        self.expect('[')?;
        let mut items = Vec::new();
        while *self.peek() != Token::Mark(']') {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(item(self)?);
        }
        self.expect(']')?;
        Ok(items)
    }

    /// Type and cut that follow on this line, without moving.
    pub fn annotation(&mut self) -> Result<(Type, Sharding), CompileError> {
        let before = self.at;
        while !matches!(
            self.peek(),
            Token::Mark(':') | Token::EndOfLine | Token::EndOfText
        ) {
            self.at += 1;
        }
        let found = self.read_annotation();
        self.at = before;
        found
    }

    /// `: type @{cut}`; without a cut, nothing is cut.
    pub fn read_annotation(&mut self) -> Result<(Type, Sharding), CompileError> {
        self.expect(':')?;
        let ty = self.value()?;
        let sharding = match self.peek() {
            Token::Mark('@') => self.value()?,
            _ => Sharding::replicated(),
        };
        Ok((ty, sharding))
    }
}
