//! OpenAI's embeddings.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingsRequest {
    /// A text or a list of texts.
    #[schema(schema_with = input_schema)]
    pub(crate) input: Input,
    /// The model, or an alias of it.
    #[schema(example = "all-MiniLM-L6-v2")]
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) encoding_format: Option<EncodingFormat>,
    /// Numbers to shorten vectors to; they are normalised again.
    #[schema(minimum = 1)]
    pub(crate) dimensions: Option<usize>,
    /// Who asks, for the log.
    pub(crate) user: Option<String>,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// Lists of numbers.
    #[default]
    Float,
    /// 32-bit numbers, little endian, in base64.
    Base64,
}

/// A text or texts.
#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    /// One text.
    Text(String),
    /// Several.
    Texts(Vec<String>),
    /// Numbers of tokens, which are refused.
    Tokens,
}

fn input_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    OneOfBuilder::new()
        .item(text())
        .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
        .build()
        .into()
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Input, E> {
        Ok(Input::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Input, A::Error> {
        let mut texts = Vec::new();
        while let Some(element) = seq.next_element::<Element>()? {
            match element {
                Element::Text(text) => texts.push(text),
                Element::Token => {
                    while seq.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(Input::Tokens);
                }
            }
        }
        Ok(Input::Texts(texts))
    }
}

enum Element {
    Text(String),
    Token,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
        Ok(Element::Text(text))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Element, E> {
        Ok(Element::Token)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Element, E> {
        Ok(Element::Token)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        while seq.next_element::<u64>()?.is_some() {}
        Ok(Element::Token)
    }
}

/// The vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse {
    #[schema(example = "list")]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Embedding>,
    /// The model as it was asked for.
    pub(crate) model: String,
    pub(crate) usage: Usage,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    #[schema(example = "embedding")]
    pub(crate) object: &'static str,
    /// Its place among the texts.
    pub(crate) index: usize,
    pub(crate) embedding: Written,
}

/// A vector as it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Written {
    Float(Vec<f32>),
    Base64(String),
}

/// What was read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of all texts, special ones included.
    pub(crate) prompt_tokens: usize,
    pub(crate) total_tokens: usize,
}

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    #[schema(example = "list")]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiModel)]
pub(crate) struct Model {
    pub(crate) id: String,
    #[schema(example = "model")]
    pub(crate) object: &'static str,
    /// When the server started, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: String,
}

#[cfg(test)]
mod tests {
    use super::Input;

    #[test]
    fn every_form_of_input_is_told_apart() {
        let texts = |texts: &[&str]| Input::Texts(texts.iter().map(|t| (*t).to_owned()).collect());
        for (json, input) in [
            ("\"a\"", Input::Text("a".to_owned())),
            ("[\"a\", \"b\"]", texts(&["a", "b"])),
            ("[]", texts(&[])),
            ("[1, 2]", Input::Tokens),
            ("[[1, 2], [3]]", Input::Tokens),
        ] {
            assert_eq!(
                serde_json::from_str::<Input>(json).unwrap(),
                input,
                "{json}"
            );
        }
        for json in ["1", "null", "{}", "[null]", "[{}]", "[[\"a\"]]", "[1.5]"] {
            assert!(serde_json::from_str::<Input>(json).is_err(), "{json}");
        }
    }
}
