//! Random histories against a plain map: every answer is the map's.

mod common;

use std::collections::BTreeMap;

use common::{DIM, Fixture};
use proptest::prelude::*;
use sela_store::{
    Bounds, Collection, Edit, Fields, Filter, Id, Op, Options, Payload, Record, Row, Schema, Test,
    Which,
};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Op>),
    Bulk(Vec<Row>),
    Edit(Which, Edit),
    Vectors(Vec<(Id, Vec<f32>)>),
    Seal,
    Compact,
    Reopen,
}

fn ids() -> impl Strategy<Value = Id> {
    prop_oneof![
        (0..40_u64).prop_map(Id::Num),
        (0..10_u8).prop_map(|n| Id::Uuid([n; 16])),
        (0..10_u8).prop_map(|n| Id::Str(format!("s{n}"))),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3..4_i64).prop_map(|n| json!(n)),
        (-2..3_i64).prop_map(|n| json!(n as f64 / 2.0)),
        prop_oneof![Just("a"), Just("b"), Just("")].prop_map(|s| json!(s)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(Value::Null),
    ]
}

fn payloads() -> impl Strategy<Value = Option<Payload>> {
    let deep = prop_oneof![
        values(),
        prop::collection::vec(values(), 0..3).prop_map(Value::Array),
        values().prop_map(|v| json!({ "z": v })),
        prop::collection::vec(values().prop_map(|v| json!({ "z": v })), 0..3)
            .prop_map(Value::Array),
    ];
    let object = prop::collection::btree_map(
        prop_oneof![Just("x".to_owned()), Just("y".to_owned())],
        deep,
        0..3,
    );
    prop::option::of(object.prop_map(|map| map.into_iter().collect()))
}

fn edits() -> impl Strategy<Value = Edit> {
    let values = prop::collection::btree_map(
        prop_oneof![Just("x".to_owned()), Just("y".to_owned())],
        values(),
        0..3,
    );
    let values = values
        .prop_map(|map| map.into_iter().collect::<Payload>())
        .boxed();
    prop_oneof![
        Just(Edit::Delete),
        values
            .clone()
            .prop_map(|values| Edit::Merge { at: None, values }),
        (values.clone(), prop_oneof![Just("x"), Just("y")]).prop_map(|(values, at)| Edit::Merge {
            at: Some(at.parse().unwrap()),
            values
        }),
        prop::option::of(values).prop_map(Edit::Replace),
        prop_oneof![Just("x"), Just("y")].prop_map(|at| Edit::Remove(vec![at.parse().unwrap()])),
    ]
}

fn whiches() -> impl Strategy<Value = Which> {
    prop_oneof![
        prop::collection::vec(ids(), 0..6).prop_map(Which::Ids),
        filters().prop_map(Which::Filter),
    ]
}

fn numbers() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-64..64_i8).prop_map(f32::from), DIM as usize)
}

fn rows() -> impl Strategy<Value = Row> {
    (ids(), numbers(), payloads(), prop::option::of("[a-c]{0,4}")).prop_map(
        |(id, vector, payload, text)| Row {
            id,
            vector,
            payload,
            text,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    let op = prop_oneof![3 => rows().prop_map(Op::Upsert), 1 => ids().prop_map(Op::Delete)];
    prop_oneof![
        6 => prop::collection::vec(op, 0..12).prop_map(Step::Write),
        2 => prop::collection::vec(rows(), 0..30).prop_map(Step::Bulk),
        2 => (whiches(), edits()).prop_map(|(which, edit)| Step::Edit(which, edit)),
        1 => prop::collection::vec((ids(), numbers()), 0..6).prop_map(Step::Vectors),
        2 => Just(Step::Seal),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

fn fields() -> impl Strategy<Value = String> {
    prop_oneof![Just("x"), Just("y"), Just("x.z"), Just("y.z")].prop_map(str::to_owned)
}

fn filters() -> impl Strategy<Value = Filter> {
    let bound = || prop::option::of((-3..4_i64).prop_map(|n| json!(n)));
    let leaf = prop_oneof![
        (fields(), values()).prop_map(|(field, value)| Filter::Eq { field, value }),
        (fields(), prop::collection::vec(values(), 0..3))
            .prop_map(|(field, values)| Filter::In { field, values }),
        (fields(), bound(), (-3..4_i64).prop_map(|n| json!(n))).prop_map(|(field, gt, lte)| {
            Filter::Range {
                field,
                bounds: Bounds {
                    gt,
                    lte: Some(lte),
                    ..Bounds::default()
                },
            }
        }),
        fields().prop_map(|field| Filter::Exists { field }),
        prop::collection::vec(ids(), 0..6).prop_map(Filter::HasId),
        (fields(), prop::collection::vec(values(), 0..3), 0..5).prop_map(
            |(field, values, kind)| {
                let path = field.parse().unwrap();
                let test = match kind {
                    0 => Test::Among(values),
                    1 => Test::NotAmong(values),
                    2 => Test::Null,
                    3 => Test::Filled,
                    _ => Test::Length(Bounds {
                        lt: Some(json!(values.len())),
                        ..Bounds::default()
                    }),
                };
                Filter::At { path, test }
            }
        ),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            (0..4_usize, prop::collection::vec(inner.clone(), 0..4))
                .prop_map(|(count, of)| Filter::AtLeast { count, of }),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

/// Written apart from the store's own evaluation, by collecting what a path leads to.
fn naive(filter: &Filter, row: &Row) -> bool {
    let found = |field: &str| -> Vec<Value> {
        let mut now = vec![Value::Object(row.payload.clone().unwrap_or_default())];
        for step in field.split('.') {
            now = now
                .iter()
                .filter_map(|v| v.as_object()?.get(step).cloned())
                .collect();
            while now.iter().any(Value::is_array) {
                now = now
                    .into_iter()
                    .flat_map(|v| match v {
                        Value::Array(items) => items,
                        other => vec![other],
                    })
                    .collect();
            }
        }
        now
    };
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    match filter {
        Filter::Eq { field, value } => found(field).iter().any(|v| same(v, value)),
        Filter::In { field, values } => found(field)
            .iter()
            .any(|v| values.iter().any(|value| same(v, value))),
        Filter::Range { field, bounds } => found(field).iter().any(|v| {
            let Some(v) = v.as_f64() else { return false };
            bounds.gt.as_ref().is_none_or(|b| v > b.as_f64().unwrap())
                && bounds.lte.as_ref().is_none_or(|b| v <= b.as_f64().unwrap())
        }),
        Filter::Exists { field } => found(field).iter().any(|v| !v.is_null()),
        Filter::HasId(ids) => ids.contains(&row.id),
        Filter::And(all) => all.iter().all(|f| naive(f, row)),
        Filter::Or(any) => any.iter().any(|f| naive(f, row)),
        Filter::Not(inner) => !naive(inner, row),
        Filter::AtLeast { count, of } => of.iter().filter(|f| naive(f, row)).count() >= *count,
        Filter::At { path, test } => naive_at(&path.to_string(), test, row),
        other => panic!("a new condition: {other:?}"),
    }
}

fn naive_at(path: &str, test: &Test, row: &Row) -> bool {
    let payload = Value::Object(row.payload.clone().unwrap_or_default());
    let found = payload.pointer(&format!("/{}", path.replace('.', "/")));
    let elements = match found {
        None => vec![],
        Some(Value::Array(items)) => items.clone(),
        Some(other) => vec![other.clone()],
    };
    match test {
        Test::Among(values) => elements.iter().any(|v| values.contains(v)),
        Test::NotAmong(values) => elements.iter().any(|v| !v.is_null() && !values.contains(v)),
        Test::Null => elements.contains(&Value::Null),
        Test::Filled => found.is_some_and(|v| !v.is_null() && *v != json!([])),
        Test::Length(bounds) => {
            let length = match found {
                Some(Value::Null) | None => 0,
                Some(_) => elements.len(),
            };
            (length as u64) < bounds.lt.as_ref().unwrap().as_u64().unwrap()
        }
        other => panic!("a new test: {other:?}"),
    }
}

fn naive_edit(edit: &Edit, payload: &mut Option<Payload>) {
    let merge = |into: &mut Payload, values: &Payload| {
        into.extend(values.clone());
        into.retain(|name, value| !(value.is_null() && values.contains_key(name)));
    };
    match edit {
        Edit::Merge { at: None, values } => merge(payload.get_or_insert_default(), values),
        Edit::Merge {
            at: Some(at),
            values,
        } => {
            let slot = payload
                .get_or_insert_default()
                .entry(at.to_string())
                .or_insert(json!({}));
            if !slot.is_object() {
                *slot = json!({});
            }
            merge(slot.as_object_mut().unwrap(), values);
        }
        Edit::Replace(new) => *payload = new.clone(),
        Edit::Remove(paths) => {
            if let Some(payload) = payload {
                payload.remove(&paths[0].to_string());
            }
        }
        other => panic!("a new edit: {other:?}"),
    }
}

/// The rows by id, and for each the sequence order of its last upsert.
#[derive(Default)]
struct Model {
    rows: BTreeMap<Id, (u64, Row)>,
    clock: u64,
}

impl Model {
    fn upsert(&mut self, row: &Row) -> bool {
        self.clock += 1;
        self.rows
            .insert(row.id.clone(), (self.clock, row.clone()))
            .is_some()
    }

    fn by_seq(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by_key(|(clock, _)| *clock);
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

fn apply(collection: &Collection, model: &mut Model, step: &Step) {
    match step {
        Step::Write(ops) => {
            let replaced = ops.iter().filter(|op| match op {
                Op::Upsert(row) => model.upsert(row),
                Op::Delete(id) => model.rows.remove(id).is_some(),
                other => panic!("a new operation: {other:?}"),
            });
            let replaced = replaced.count() as u64;
            let written = collection.write(ops).unwrap();
            assert_eq!(
                (written.count, written.replaced),
                (ops.len() as u64, replaced)
            );
        }
        Step::Bulk(rows) => {
            let replaced = rows.iter().filter(|row| model.upsert(row)).count() as u64;
            let mut bulk = collection.bulk().unwrap();
            for row in rows {
                bulk.push(row.clone()).unwrap();
            }
            let written = bulk.commit().unwrap();
            assert_eq!(
                (written.count, written.replaced),
                (rows.len() as u64, replaced)
            );
        }
        Step::Edit(which, edit) => apply_edit(collection, model, which, edit),
        Step::Vectors(vectors) => {
            let mut changed = BTreeMap::new();
            let mut order = Vec::new();
            for (id, vector) in vectors {
                if let Some((_, row)) = model.rows.get(id) {
                    if !changed.contains_key(id) {
                        order.push(id);
                    }
                    let row = Row {
                        vector: vector.clone(),
                        ..row.clone()
                    };
                    changed.insert(id, row);
                }
            }
            order.into_iter().for_each(|id| {
                model.upsert(&changed[id]);
            });
            let edited = collection.replace_vectors(vectors).unwrap();
            assert_eq!(edited.count, changed.len() as u64);
        }
        Step::Seal => {
            collection.seal().unwrap();
        }
        Step::Compact => {
            collection.compact().unwrap();
        }
        Step::Reopen => {}
    }
}

fn apply_edit(collection: &Collection, model: &mut Model, which: &Which, edit: &Edit) {
    let named: Vec<Row> = match which {
        Which::Ids(ids) => {
            let mut ids = ids.clone();
            let mut seen = std::collections::BTreeSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            ids.iter()
                .filter_map(|id| model.rows.get(id).map(|(_, row)| row.clone()))
                .collect()
        }
        Which::Filter(filter) => {
            let rows = model.by_seq();
            let rows = rows.into_iter().filter(|row| naive(filter, row));
            rows.cloned().collect()
        }
    };
    let edited = collection.edit(which, edit).unwrap();
    assert_eq!(edited.count, named.len() as u64);
    for mut row in named {
        if *edit == Edit::Delete {
            model.rows.remove(&row.id);
        } else {
            naive_edit(edit, &mut row.payload);
            model.upsert(&row);
        }
    }
}

fn check(collection: &Collection, model: &Model, filter: &Filter) {
    let expected = model.by_seq();
    assert_eq!(collection.count(None).unwrap(), expected.len() as u64);
    let ids: Vec<Id> = expected.iter().map(|row| row.id.clone()).collect();
    let got = collection.get(&ids, Fields::ALL).unwrap();
    assert!(
        got.iter()
            .zip(&expected)
            .all(|(a, b)| a.as_ref() == Some(*b))
    );

    let scrolled = scroll_all(collection, None);
    assert!(scrolled.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(
        scrolled.iter().map(|(_, row)| row).collect::<Vec<_>>(),
        expected
    );

    let matching: Vec<&Row> = expected
        .iter()
        .copied()
        .filter(|row| naive(filter, row))
        .collect();
    let scrolled = scroll_all(collection, Some(filter));
    assert_eq!(
        scrolled.iter().map(|(_, row)| row).collect::<Vec<_>>(),
        matching,
        "{filter:?}"
    );
    assert_eq!(
        collection.count(Some(filter)).unwrap(),
        matching.len() as u64
    );
    let mut by_id = matching.clone();
    by_id.sort_by(|a, b| a.id.cmp(&b.id));
    let (mut pages, mut from) = (Vec::new(), None);
    loop {
        let page = collection
            .scroll_by_id(from.as_ref(), 3, Some(filter), Fields::ALL)
            .unwrap();
        pages.extend(page.rows);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(pages.iter().collect::<Vec<_>>(), by_id, "{filter:?}");
    let view = collection.view().unwrap();
    let mut selected = Vec::new();
    for (part, words) in view
        .parts()
        .iter()
        .zip(collection.select(&view, filter).unwrap())
    {
        for row in 0..part.rows() {
            if words[row as usize / 64] >> (row % 64) & 1 == 1 {
                selected.push(part.id(row).unwrap());
            }
        }
    }
    selected.sort();
    let mut wanted: Vec<Id> = matching.iter().map(|row| row.id.clone()).collect();
    wanted.sort();
    assert_eq!(selected, wanted);
}

fn scroll_all(collection: &Collection, filter: Option<&Filter>) -> Vec<(u64, Row)> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = collection.scroll(after, 7, filter, Fields::ALL).unwrap();
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn filters_survive_json(filter in filters()) {
        let json = serde_json::to_string(&filter).unwrap();
        prop_assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    }

    #[test]
    fn any_history_answers_like_a_map(
        steps in prop::collection::vec((steps(), filters()), 1..14),
        half in any::<bool>(),
        seal_rows in prop_oneof![Just(5), Just(1_000)],
    ) {
        let fixture = Fixture::new();
        let options = Options { seal_rows, segment_rows: 16, ..Options::default() };
        let mut schema = Schema::new(DIM, "tests");
        schema.record = if half { Record::F16 } else { Record::F32 };
        let mut collection = Collection::create(&fixture.dir, &schema, &options).unwrap();
        let mut model = Model::default();
        for (step, filter) in &steps {
            apply(&collection, &mut model, step);
            if let Step::Reopen = step {
                drop(collection);
                collection = Collection::open(&fixture.dir, &options).unwrap();
            }
            check(&collection, &model, filter);
        }
        let report = collection.verify().unwrap();
        prop_assert!(report.is_sound(), "{:?}", report.faults);
        prop_assert_eq!(report.rows, model.rows.len() as u64);
        drop(collection);
        let names = std::fs::read_dir(fixture.dir.join("segments")).unwrap().count();
        let reopened = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
        prop_assert_eq!(names as u64, reopened.info().unwrap().segments);
    }
}
