//! Changes of points: read from requests, then made.

use sela::{Collection, Edit, Edited, Embeddings, FieldPath, Id, Item, Metric, Payload, Which};
use serde_json::Value;

use super::super::inference::{self, check_space};
use super::super::info::is_declared;
use super::super::{filter, id_of, ids_of, unsupported};
use crate::dto::qdrant::UpdateResult;
use crate::dto::qdrant::points::{
    DeletePayload, PointStruct, PointsBatch, PointsSelector, SetPayload, UpdateVectors,
    UpsertPoints,
};
use crate::dto::qdrant::vectors::{ModelText, PointVector};
use crate::error::ApiError;
use crate::state::AppState;
use crate::work;

/// A change of points.
#[derive(Debug)]
pub(super) enum Change {
    /// Stores points.
    Store(Vec<Point>),
    /// Removes points, or changes payloads.
    Edit(Which, Edit),
    /// Gives points other vectors.
    Vectors(Vec<(Id, Vec<f32>)>),
}

/// A point to be stored.
#[derive(Debug)]
pub(super) struct Point {
    id: Id,
    vector: PointVector,
    payload: Option<Payload>,
}

impl Change {
    /// Points, as a list or in parts.
    pub(super) fn store(request: UpsertPoints) -> Result<Self, ApiError> {
        if let Some(mode) = request.update_mode.filter(|mode| mode != "upsert") {
            let mode: String = mode.chars().take(100).collect();
            return Err(unsupported(&format!("the update mode `{mode}`")).field("update_mode"));
        }
        match (request.points, request.batch) {
            (Some(points), None) => {
                let points = points.into_iter().enumerate();
                let read = |(at, point): (usize, PointStruct)| {
                    Ok(Point {
                        id: id_of(&point.id, || format!("points[{at}].id"))?,
                        vector: point.vector,
                        payload: point.payload,
                    })
                };
                Ok(Self::Store(
                    points.map(read).collect::<Result<_, ApiError>>()?,
                ))
            }
            (None, Some(batch)) => of_batch(batch).map(Self::Store),
            _ => Err(ApiError::malformed(
                "invalid_field",
                "points are given either as `points` or as `batch`",
            )),
        }
    }

    pub(super) fn delete(request: PointsSelector) -> Result<Self, ApiError> {
        let which = which(request.points, request.filter)?;
        Ok(Self::Edit(which, Edit::Delete))
    }

    pub(super) fn set_payload(request: SetPayload) -> Result<Self, ApiError> {
        let which = which(request.points, request.filter)?;
        let edit = Edit::Merge {
            at: request.key.map(|key| path(&key, "key")).transpose()?,
            values: request.payload,
        };
        Ok(Self::Edit(which, edit))
    }

    pub(super) fn overwrite_payload(request: SetPayload) -> Result<Self, ApiError> {
        if request.key.is_some() {
            return Err(unsupported("`key` where a payload is overwritten")
                .field("key")
                .hint("set the payload instead"));
        }
        let which = which(request.points, request.filter)?;
        Ok(Self::Edit(which, Edit::Replace(Some(request.payload))))
    }

    pub(super) fn delete_payload(request: DeletePayload) -> Result<Self, ApiError> {
        let which = which(request.points, request.filter)?;
        let keys = request.keys.iter().map(|key| path(key, "keys"));
        Ok(Self::Edit(
            which,
            Edit::Remove(keys.collect::<Result<_, _>>()?),
        ))
    }

    pub(super) fn clear_payload(request: PointsSelector) -> Result<Self, ApiError> {
        let which = which(request.points, request.filter)?;
        Ok(Self::Edit(which, Edit::Replace(None)))
    }

    pub(super) fn vectors(request: UpdateVectors) -> Result<Self, ApiError> {
        let mut vectors = Vec::with_capacity(request.points.len());
        for (at, point) in request.points.into_iter().enumerate() {
            let id = id_of(&point.id, || format!("points[{at}].id"))?;
            let PointVector::Dense(vector) = point.vector else {
                return Err(
                    unsupported("another text for a point that keeps its payload")
                        .field(format!("points[{at}].vector"))
                        .hint("store the point with its text and payload anew"),
                );
            };
            vectors.push((id, vector));
        }
        Ok(Self::Vectors(vectors))
    }
}

fn of_batch(batch: PointsBatch) -> Result<Vec<Point>, ApiError> {
    let (ids, vectors) = (batch.ids.len(), batch.vectors.0.len());
    let payloads = batch.payloads.as_ref().map_or(ids, Vec::len);
    if ids != vectors || ids != payloads {
        let detail = format!("the batch has {ids} ids, {vectors} vectors and {payloads} payloads");
        return Err(ApiError::malformed("invalid_field", detail).field("batch"));
    }
    let mut payloads = batch.payloads.unwrap_or_default().into_iter();
    let parts = batch.ids.iter().zip(batch.vectors.0).enumerate();
    parts
        .map(|(at, (id, vector))| {
            Ok(Point {
                id: id_of(id, || format!("batch.ids[{at}]"))?,
                vector,
                payload: payloads.next().flatten(),
            })
        })
        .collect()
}

fn which(points: Option<Vec<Value>>, filter: Option<Value>) -> Result<Which, ApiError> {
    match (points, filter) {
        (Some(ids), None) => Ok(Which::Ids(ids_of(&ids, "points")?)),
        (None, Some(json)) => Ok(Which::Filter(filter::parse(&json)?)),
        _ => Err(ApiError::malformed(
            "invalid_field",
            "which points is said either by `points`, a list of ids, or by a `filter`",
        )),
    }
}

fn path(text: &str, field: &'static str) -> Result<FieldPath, ApiError> {
    let path = text.parse::<FieldPath>();
    path.map_err(|error| ApiError::malformed("field_refused", error.to_string()).field(field))
}

/// Makes changes one after another. What can be known of all is looked at before the first.
pub(super) async fn make(
    app: &AppState,
    name: String,
    changes: Vec<Change>,
) -> Result<Vec<UpdateResult>, ApiError> {
    let state = app.clone();
    let open = work::blocking(app, move || {
        let collection = state.collection(&name)?;
        let checked = changes.iter().try_for_each(|c| check(&collection, c));
        checked.map(|()| (collection, changes))
    });
    let (collection, changes) = open.await?;
    let mut done = Vec::with_capacity(changes.len());
    for change in changes {
        let collection = collection.clone();
        let embedded = inference::embed(app, texts(&change)).await?;
        let made = work::blocking(app, move || made(&collection, change, embedded));
        done.push(UpdateResult {
            operation_id: made.await?,
            status: "completed",
        });
    }
    Ok(done)
}

fn texts(change: &Change) -> Vec<ModelText> {
    let Change::Store(points) = change else {
        return Vec::new();
    };
    let texts = points.iter().filter_map(|point| match &point.vector {
        PointVector::Text(text) => Some(text.clone()),
        PointVector::Dense(_) => None,
    });
    texts.collect()
}

/// Refuses what the collection cannot take before any text is embedded and any change made.
fn check(collection: &Collection, change: &Change) -> Result<(), ApiError> {
    let dim = collection.schema().dim as usize;
    let check_dim = |id: &Id, vector: &[f32]| match vector.len() {
        found if found == dim => Ok(()),
        found => {
            let detail = format!(
                "point `{id}` has a vector of {found} numbers, and the collection holds vectors \
                 of {dim}"
            );
            Err(ApiError::malformed("dimension_mismatch", detail))
        }
    };
    match change {
        Change::Edit(..) => Ok(()),
        Change::Vectors(vectors) => vectors.iter().try_for_each(|(id, v)| check_dim(id, v)),
        Change::Store(points) => points.iter().try_for_each(|point| match &point.vector {
            PointVector::Dense(vector) => check_dim(&point.id, vector),
            PointVector::Text(_) => check_space(collection),
        }),
    }
}

/// Makes a change; the newest sequence after it. Blocks.
fn made(
    collection: &Collection,
    change: Change,
    embedded: Option<Embeddings>,
) -> Result<u64, ApiError> {
    match change {
        Change::Store(points) => stored(collection, points, embedded),
        Change::Edit(which, edit) => {
            let edited = collection.edit(&which, &edit)?;
            match edit {
                Edit::Delete => Ok(edited.last_seq),
                _ => all_there(&edited),
            }
        }
        Change::Vectors(mut vectors) => {
            if collection.metric() == Metric::Cosine {
                vectors.iter_mut().for_each(|(_, vector)| unit(vector));
            }
            let declared = declared(collection)?;
            all_there(&declared.replace_vectors(&vectors)?)
        }
    }
}

fn stored(
    collection: &Collection,
    points: Vec<Point>,
    embedded: Option<Embeddings>,
) -> Result<u64, ApiError> {
    let only_texts = points
        .iter()
        .all(|point| matches!(point.vector, PointVector::Text(_)));
    // The model's own vectors are what they are declared to be.
    let target = match embedded.is_some() && only_texts {
        true => collection.declare_vectors()?,
        false => declared(collection)?,
    };
    let cosine = collection.metric() == Metric::Cosine;
    let mut made = embedded
        .iter()
        .flat_map(|embedded| embedded.vectors.chunks_exact(embedded.dim));
    let items = points.into_iter().map(|point| {
        let (text, mut vector) = match point.vector {
            PointVector::Dense(vector) => (None, vector),
            PointVector::Text(text) => (
                Some(text.text),
                made.next().map(<[f32]>::to_vec).unwrap_or_default(),
            ),
        };
        if cosine {
            unit(&mut vector);
        }
        Item {
            id: point.id,
            text,
            vector: Some(vector),
            payload: point.payload,
        }
    });
    let items: Vec<Item> = items.collect();
    Ok(target.upsert(&items)?.written.last_seq)
}

/// The collection as its creator declared it.
fn declared(collection: &Collection) -> Result<Collection, ApiError> {
    match is_declared(collection) {
        true => Ok(collection.declare_vectors()?),
        false => Ok(collection.clone()),
    }
}

fn all_there(edited: &Edited) -> Result<u64, ApiError> {
    match &edited.missing {
        None => Ok(edited.last_seq),
        Some(id) => {
            let changed = edited.count;
            let detail = format!("there is no point `{id}`; {changed} others are changed");
            Err(ApiError::not_found("no_point", detail))
        }
    }
}

/// Brings a vector to length 1. One that has it stays to the bit; one of length 0 as well.
fn unit(vector: &mut [f32]) {
    /// What rounding a vector of length 1 to 32 bits may leave of its squared length.
    const ROUNDING: f64 = 1e-6;
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if squares == 0.0 || (squares - 1.0).abs() <= ROUNDING {
        return;
    }
    let length = squares.sqrt();
    vector
        .iter_mut()
        .for_each(|x| *x = (f64::from(*x) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::unit;

    #[test]
    fn vectors_come_to_length_one_and_stay_there() {
        let mut vector = vec![3.0, 0.0, -4.0];
        unit(&mut vector);
        assert_eq!(vector, [0.6, 0.0, -0.8]);
        let before = vector.clone();
        unit(&mut vector);
        assert_eq!(vector, before);
        for (mut odd, expected) in [
            (vec![0.0, 0.0], [0.0, 0.0]),
            (vec![f32::MAX, 0.0], [1.0, 0.0]),
            (vec![1e-45, 0.0], [1.0, 0.0]),
        ] {
            unit(&mut odd);
            assert_eq!(odd, expected);
        }
    }
}
