//! The T5 tokenizer: prompts to ids.
//!
//! It is read from `tokenizer.json`, or built from the SentencePiece model `spiece.model`; where both
//! are there the first is taken, as the reference does. Both give the same ids. Refused: files that
//! are damaged or are no unigram model, and limits without room for the end of a text.
//!
//! Source: `tokenization_t5.py` of transformers 5.23.

use crate::ModelError;
use crate::config::{ConfigFile, Field};
use crate::folder::ComponentFolder;
use sentencepiece_model::{ModelType, SentencePieceModel};
use serde_json::Value;
use tokenizers::decoders::metaspace::Metaspace as MetaspaceDecoder;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

const JSON: &str = "tokenizer.json";
const SPIECE: &str = "spiece.model";
const CONFIG: &str = "tokenizer_config.json";

/// Stands for a space inside pieces.
const SPACE: char = '▁';

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    eos: u32,
    pad: u32,
}

/// Tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, padded to the limit.
    pub ids: Vec<u32>,
    /// The text that did not fit.
    pub truncated: Option<String>,
}

/// Special tokens: the fields of `tokenizer_config.json` that ids depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Ends every text.
    pub eos: String,
    /// Fills texts up.
    pub pad: String,
    /// Stands for what no piece covers.
    pub unknown: String,
    /// Number of sentinels `<extra_id_0>`... behind the pieces of a SentencePiece model.
    pub extra_ids: usize,
}

impl Default for SpecialTokens {
    fn default() -> Self {
        Self {
            eos: "</s>".into(),
            pad: "<pad>".into(),
            unknown: "<unk>".into(),
            extra_ids: 100,
        }
    }
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`; its other fields do not change ids.
    ///
    /// # Errors
    /// A field has another type.
    pub fn from_config(mut file: ConfigFile) -> Result<Self, ModelError> {
        let default = Self::default();
        Ok(Self {
            eos: token(&mut file, "eos_token", default.eos)?,
            pad: token(&mut file, "pad_token", default.pad)?,
            unknown: token(&mut file, "unk_token", default.unknown)?,
            extra_ids: file.take("extra_ids", default.extra_ids)?,
        })
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn open(folder: &ComponentFolder<'_>) -> Result<Self, ModelError> {
        let special = if folder.has(CONFIG) {
            SpecialTokens::from_config(folder.config(CONFIG)?)?
        } else {
            SpecialTokens::default()
        };
        if folder.has(JSON) {
            return Self::from_json(&folder.show(JSON), &folder.read(JSON)?, &special);
        }
        Self::from_spiece(&folder.show(SPIECE), &folder.read(SPIECE)?, &special)
    }

    /// Reads the bytes of a `tokenizer.json`; `file` names it in errors.
    ///
    /// # Errors
    /// The file is damaged or does not know a special token.
    pub fn from_json(
        file: &str,
        bytes: &[u8],
        special: &SpecialTokens,
    ) -> Result<Self, ModelError> {
        let mut inner = Inner::from_bytes(bytes).map_err(|e| damaged(file, e))?;
        // Limits are those of each call.
        inner.with_truncation(None).map_err(|e| damaged(file, e))?;
        inner.with_padding(None);
        Self::new(file, inner, special)
    }

    /// Builds the tokenizer of a SentencePiece model; `file` names it in errors.
    ///
    /// # Errors
    /// The bytes are damaged, or the model is no unigram model.
    pub fn from_spiece(
        file: &str,
        bytes: &[u8],
        special: &SpecialTokens,
    ) -> Result<Self, ModelError> {
        let model = SentencePieceModel::from_slice(bytes).map_err(|e| damaged(file, e))?;
        let mut inner = Inner::new(unigram(file, &model, special)?);
        let charsmap = model
            .normalizer()
            .map_or(&[][..], |n| n.precompiled_charsmap());
        if !charsmap.is_empty() {
            let normalizer = Precompiled::from(charsmap).map_err(|e| damaged(file, e))?;
            inner
                .with_normalizer(Some(normalizer))
                .map_err(|e| damaged(file, e))?;
        }
        let metaspace = Metaspace::new(SPACE, PrependScheme::Always, true);
        let split = vec![WhitespaceSplit.into(), metaspace.into()];
        inner.with_pre_tokenizer(Some(Sequence::new(split)));
        inner.with_decoder(Some(MetaspaceDecoder::new(
            SPACE,
            PrependScheme::Always,
            true,
        )));
        let tokens = [&special.pad, &special.eos, &special.unknown];
        let tokens = tokens.into_iter().cloned().chain(sentinels(special));
        inner
            .add_special_tokens(tokens.map(|token| AddedToken::from(token, true)))
            .map_err(|e| damaged(file, e))?;
        let eos = id(file, &inner, &special.eos)?;
        inner.with_post_processor(Some(ending(file, &special.eos, eos)?));
        Self::new(file, inner, special)
    }

    /// Ids of `text`, ended by the end token and padded to `max_length`. A text that does not fit
    /// keeps its beginning and the end token.
    ///
    /// # Errors
    /// `max_length` is zero, or the text cannot be tokenized.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Encoded, ModelError> {
        let Some(kept) = max_length.checked_sub(1) else {
            return Err(ModelError::Size {
                what: "number of text tokens",
                found: 0,
                expected: "at least 1".into(),
            });
        };
        let refused = |e: tokenizers::Error| ModelError::Text {
            reason: e.to_string(),
        };
        let encoding = self.inner.encode(text, true).map_err(refused)?;
        let mut ids = encoding.get_ids().to_vec();
        let mut truncated = None;
        if ids.len() > max_length {
            let cut = &ids[kept..ids.len() - 1];
            truncated = Some(self.inner.decode(cut, false).map_err(refused)?);
            ids.truncate(kept);
            ids.push(self.eos);
        }
        ids.resize(max_length, self.pad);
        Ok(Encoded { ids, truncated })
    }

    fn new(file: &str, inner: Inner, special: &SpecialTokens) -> Result<Self, ModelError> {
        let eos = id(file, &inner, &special.eos)?;
        let pad = id(file, &inner, &special.pad)?;
        Ok(Self { inner, eos, pad })
    }
}

/// The pieces and the sentinels behind them.
fn unigram(
    file: &str,
    model: &SentencePieceModel,
    special: &SpecialTokens,
) -> Result<Unigram, ModelError> {
    let Some(trainer) = model.trainer() else {
        return Err(damaged(file, "it has no trainer_spec"));
    };
    if trainer.model_type() != ModelType::Unigram {
        let found = trainer.model_type().as_str_name();
        return Err(damaged(
            file,
            format!("expected a UNIGRAM model, found {found}"),
        ));
    }
    let unknown =
        usize::try_from(trainer.unk_id()).map_err(|_| damaged(file, "it has no unknown piece"))?;
    let pieces = model.pieces().iter();
    let vocabulary = pieces
        .map(|piece| (piece.piece().to_owned(), f64::from(piece.score())))
        .chain(sentinels(special).map(|sentinel| (sentinel, 0.0)))
        .collect();
    Unigram::from(vocabulary, Some(unknown), trainer.byte_fallback()).map_err(|e| damaged(file, e))
}

/// Sentinels in order of id.
fn sentinels(special: &SpecialTokens) -> impl Iterator<Item = String> {
    (0..special.extra_ids)
        .rev()
        .map(|i| format!("<extra_id_{i}>"))
}

/// A text, then the end token.
fn ending(file: &str, token: &str, id: u32) -> Result<TemplateProcessing, ModelError> {
    let template = vec!["$A".to_owned(), token.to_owned()];
    TemplateProcessing::builder()
        .try_single(template)
        .map_err(|e| damaged(file, e))?
        .special_tokens(vec![(token.to_owned(), id)])
        .build()
        .map_err(|e| damaged(file, e))
}

fn id(file: &str, inner: &Inner, token: &str) -> Result<u32, ModelError> {
    let id = inner.token_to_id(token);
    id.ok_or_else(|| damaged(file, format!("it has no token {token}")))
}

fn token(file: &mut ConfigFile, key: &str, default: String) -> Result<String, ModelError> {
    let token: Option<TokenText> = file.take_optional(key)?;
    Ok(token.map_or(default, |TokenText(text)| text))
}

/// A token, given by its text or by an object that holds it.
struct TokenText(String);

impl Field for TokenText {
    fn expected() -> String {
        "a string, or an object with a string \"content\"".into()
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some(Self(text.to_owned()))
    }
}

fn damaged(file: &str, reason: impl ToString) -> ModelError {
    ModelError::Tokenizer {
        file: file.into(),
        reason: reason.to_string(),
    }
}
