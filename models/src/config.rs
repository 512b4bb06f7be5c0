//! Strict reading of `config.json` files.
//!
//! A config is one JSON object. Every key that the class knows is taken once, with the default of
//! the reference class when it is absent; keys that begin with `_` are the library's own and are
//! skipped; any other key that is left over is refused by name, because a field that is not
//! understood may change what the model computes.

use crate::ModelError;
use serde_json::{Map, Value};
use std::path::Path;

/// A config file whose keys are taken one by one.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    file: String,
    class: Option<String>,
    fields: Map<String, Value>,
}

/// A type that a config key may hold.
pub trait Field: Sized {
    /// The type's name in errors.
    fn expected() -> String;

    /// The value, or `None` when it has another type.
    fn from_json(value: &Value) -> Option<Self>;
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read or is not a JSON object.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|source| ModelError::Read {
            file: path.into(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses the text of a file; `file` names it in errors.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        let value = serde_json::from_str(text).map_err(|source| ModelError::Json {
            file: file.into(),
            source,
        })?;
        let Value::Object(fields) = value else {
            return Err(ModelError::NotAnObject {
                file: file.into(),
                found: shown(&value),
            });
        };
        let class = fields
            .get("_class_name")
            .and_then(Value::as_str)
            .map(str::to_owned);
        Ok(Self {
            file: file.into(),
            class,
            fields,
        })
    }

    /// The name of the file in errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The class that the file names, when it is one of `expected`.
    ///
    /// # Errors
    /// The file names none or another class.
    pub fn class(&self, expected: &[&str]) -> Result<&str, ModelError> {
        match &self.class {
            Some(class) if expected.contains(&class.as_str()) => Ok(class),
            other => Err(ModelError::Class {
                file: self.file.clone(),
                expected: expected.join(" or "),
                found: other
                    .clone()
                    .unwrap_or_else(|| "no key \"_class_name\"".into()),
            }),
        }
    }

    /// Takes a key, or its default when the key is absent.
    ///
    /// # Errors
    /// The value has another type.
    pub fn take<T: Field>(&mut self, key: &str, default: T) -> Result<T, ModelError> {
        Ok(self.take_optional(key)?.unwrap_or(default))
    }

    /// Takes a key that has no default.
    ///
    /// # Errors
    /// The key is absent or its value has another type.
    pub fn take_required<T: Field>(&mut self, key: &str) -> Result<T, ModelError> {
        self.take_optional(key)?
            .ok_or_else(|| ModelError::MissingKey {
                file: self.file.clone(),
                key: key.into(),
                expected: T::expected(),
            })
    }

    /// Takes a key if it is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn take_optional<T: Field>(&mut self, key: &str) -> Result<Option<T>, ModelError> {
        let Some(value) = self.fields.remove(key) else {
            return Ok(None);
        };
        match T::from_json(&value) {
            Some(field) => Ok(Some(field)),
            None => Err(ModelError::WrongType {
                file: self.file.clone(),
                key: key.into(),
                expected: T::expected(),
                found: shown(&value),
            }),
        }
    }

    /// Skips keys that do not change what the model computes.
    pub fn skip(&mut self, keys: &[&str]) {
        for key in keys {
            self.fields.remove(*key);
        }
    }

    /// The error of a value that is understood but not served.
    pub fn unsupported(&self, key: &str, value: impl Into<Value>, supported: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.file.clone(),
            key: key.into(),
            value: shown(&value.into()),
            supported: supported.into(),
        }
    }

    /// Checks that every key has been taken.
    ///
    /// # Errors
    /// Keys are left over.
    pub fn finish(self) -> Result<(), ModelError> {
        let class = self.class.as_deref().unwrap_or("the class");
        let class = format!("{class} of diffusers 0.42");
        self.finish_as(&class)
    }

    /// The same for a file that names no class of diffusers.
    ///
    /// # Errors
    /// Keys are left over.
    pub fn finish_as(self, class: &str) -> Result<(), ModelError> {
        let mut keys: Vec<String> = self
            .fields
            .keys()
            .filter(|k| !k.starts_with('_'))
            .map(|k| format!("\"{k}\""))
            .collect();
        keys.sort();
        if keys.is_empty() {
            return Ok(());
        }
        Err(ModelError::UnknownKeys {
            file: self.file,
            class: class.into(),
            keys: keys.join(", "),
        })
    }
}

impl Field for usize {
    fn expected() -> String {
        "a whole number".into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|v| v.try_into().ok())
    }
}

impl Field for f64 {
    fn expected() -> String {
        "a number".into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Field for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    fn expected() -> String {
        "a string".into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl<T: Field> Field for Option<T> {
    fn expected() -> String {
        format!("{} or null", T::expected())
    }

    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            other => T::from_json(other).map(Some),
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_json).collect()
    }
}

/// A value as short JSON.
fn shown(value: &Value) -> String {
    const LIMIT: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
