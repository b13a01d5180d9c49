//! Vectors of points, or the texts to make them of.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A vector, or the text that it is to be made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointVector {
    Dense(Vec<f32>),
    Text(ModelText),
}

/// A text and the model that is to read it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelText {
    pub(crate) text: String,
    pub(crate) model: String,
}

/// How the document of the routes shows [`PointVector`].
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands in the document of the routes")]
pub(crate) enum AnyVector {
    Dense(Vec<f32>),
    /// The one vector under its empty name.
    #[schema(value_type = Object, example = json!({"": [0.6, 0.8]}))]
    Named(Value),
    Text(TextToEmbed),
}

/// A text to be embedded by the server's model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextToEmbed {
    pub(crate) text: String,
    /// The server's model, by its name or an alias.
    pub(crate) model: String,
}

impl<'de> Deserialize<'de> for PointVector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(VectorVisitor)
    }
}

struct VectorVisitor;

impl<'de> Visitor<'de> for VectorVisitor {
    type Value = PointVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector: a list of numbers, or an object of a `text` and a `model`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PointVector, A::Error> {
        let mut numbers = Vec::new();
        while let Some(Number(number)) = seq.next_element()? {
            numbers.push(number);
        }
        Ok(PointVector::Dense(numbers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PointVector, A::Error> {
        let (mut text, mut model, mut unnamed) = (None, None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "" => unnamed = Some(map.next_value::<PointVector>()?),
                "text" => text = Some(map.next_value::<String>()?),
                "object" => match map.next_value()? {
                    Value::String(object) => text = Some(object),
                    _ => return Err(A::Error::custom("only texts can be embedded: `object`")),
                },
                "model" => model = Some(map.next_value::<String>()?),
                "options" => {
                    let options = map.next_value::<Option<Map<String, Value>>>()?;
                    if let Some(option) = options.unwrap_or_default().keys().next() {
                        return Err(unsupported("the options of a model", option));
                    }
                }
                "image" => return Err(unsupported("embedding of images", &name)),
                "indices" | "values" => return Err(unsupported("sparse vectors", &name)),
                _ => return Err(unsupported("named vectors", &name)),
            }
        }
        match (unnamed, text, model) {
            (Some(vector), None, None) => Ok(vector),
            (None, Some(text), Some(model)) => Ok(PointVector::Text(ModelText { text, model })),
            _ => Err(A::Error::custom(
                "a vector is a list of numbers, or an object of a `text` and a `model`",
            )),
        }
    }
}

fn unsupported<E: Error>(feature: &str, found: &str) -> E {
    let found: String = found.chars().take(100).collect();
    E::custom(format_args!(
        "this server does not support {feature}: `{found}`"
    ))
}

/// A number of a vector: finite as 32 bits hold it.
struct Number(f32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        let narrow = number as f32;
        match narrow.is_finite() {
            true => Ok(Number(narrow)),
            false => Err(E::custom(format_args!(
                "{number:e} is beyond the range of 32-bit numbers"
            ))),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number as f32))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number as f32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Number, A::Error> {
        Err(A::Error::custom(
            "this server does not support multivectors: a vector is a list of numbers",
        ))
    }
}

/// The vectors of a batch: a list, or such a list under the name `""`.
#[derive(Debug)]
pub(crate) struct BatchVectors(pub(crate) Vec<PointVector>);

impl<'de> Deserialize<'de> for BatchVectors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = BatchVectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of vectors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BatchVectors, A::Error> {
        let mut vectors = Vec::new();
        while let Some(vector) = seq.next_element()? {
            vectors.push(vector);
        }
        Ok(BatchVectors(vectors))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BatchVectors, A::Error> {
        let mut vectors = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "" => vectors = Some(map.next_value::<BatchVectors>()?),
                _ => return Err(unsupported("named vectors", &name)),
            }
        }
        vectors.ok_or_else(|| A::Error::custom("there are no vectors under the name ``"))
    }
}

#[cfg(test)]
mod tests {
    use super::{ModelText, PointVector};

    #[test]
    fn vectors_come_in_all_their_forms() {
        let dense = PointVector::Dense(vec![1.0, -2.5, 0.0]);
        let text = PointVector::Text(ModelText {
            text: "a".to_owned(),
            model: "m".to_owned(),
        });
        for (json, vector) in [
            ("[1, -2.5, 0]", &dense),
            (r#"{"": [1, -2.5, 0]}"#, &dense),
            (r#"{"text": "a", "model": "m"}"#, &text),
            (r#"{"model": "m", "object": "a", "options": {}}"#, &text),
            (r#"{"": {"text": "a", "model": "m"}}"#, &text),
        ] {
            assert_eq!(serde_json::from_str::<PointVector>(json).unwrap(), *vector);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, said) in [
            ("[[1.0], [2.0]]", "multivectors"),
            (r#"{"indices": [1], "values": [1.0]}"#, "sparse vectors"),
            (r#"{"title": [1.0]}"#, "named vectors: `title`"),
            (r#"{"image": "x", "model": "m"}"#, "images"),
            (r#"{"object": 1, "model": "m"}"#, "only texts"),
            (
                r#"{"text": "a", "model": "m", "options": {"k": 1}}"#,
                "options",
            ),
            (r#"{"text": "a"}"#, "a `model`"),
            ("[1e39]", "32-bit"),
            ("[\"1\"]", "a number"),
            ("\"abc\"", "a vector"),
        ] {
            let error = serde_json::from_str::<PointVector>(json).unwrap_err();
            assert!(error.to_string().contains(said), "{json}: {error}");
        }
    }
}
