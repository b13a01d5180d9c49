"""Holds a server's Qdrant routes against the official client: every answer is looked at.

Run with SELA_URL and SELA_KEY in the environment.
"""

import io
import math
import os
import tarfile
import uuid
import warnings

import httpx
from qdrant_client import QdrantClient, models as m
from qdrant_client.http.exceptions import UnexpectedResponse

URL, KEY = os.environ["SELA_URL"], os.environ["SELA_KEY"]
DIM = 4
UUID = "67e55044-10b1-426f-9247-bb680e5fe0c8"
CITIES = "cities"


def refused(status, said, call, *args, **kwargs):
    """The call must fail with this status and say this."""
    try:
        answer = call(*args, **kwargs)
    except UnexpectedResponse as error:
        body = error.content.decode()
        assert error.status_code == status, (status, error.status_code, body)
        assert said.lower() in body.lower(), (said, body)
        return
    raise AssertionError(f"{said}: answered with {answer!r} instead of {status}")


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def near(a, b, tolerance=1e-5):
    assert len(a) == len(b) and all(abs(x - y) < tolerance for x, y in zip(a, b)), (a, b)


def ids(points):
    return [point.id for point in points]


POINTS = [
    (1, [1.0, 0.0, 0.0, 0.0], {"city": "Rome", "people": 28, "tags": ["old", "sea"], "at": "2024-03-01T00:00:00Z"}),
    (2, [0.9, 0.1, 0.0, 0.0], {"city": "Oslo", "people": 7, "tags": ["sea"], "at": "2024-04-01T00:00:00Z"}),
    (UUID, [0.0, 1.0, 0.0, 0.0], {"city": "Bern", "people": 1, "tags": [], "open": True, "none": None}),
    ("string id", [0.0, 0.0, 2.0, 0.0], {"city": "Graz", "people": 3, "size": 127.5, "line": "hills and a clock tower"}),
    (5, [0.0, 0.0, 0.0, 5.0], {"sights": [{"name": "bridge", "seen": True}, {"name": "abbey", "seen": False}]}),
]
ALL = [point[0] for point in POINTS]


def collections(client):
    assert client.info().version
    assert not client.collection_exists(CITIES)
    refused(404, "cities", client.get_collection, CITIES)
    vectors = m.VectorParams(size=DIM, distance=m.Distance.COSINE, on_disk=True)
    hints = {
        "hnsw_config": m.HnswConfigDiff(m=16, on_disk=False),
        "optimizers_config": m.OptimizersConfigDiff(indexing_threshold=20_000),
        "on_disk_payload": True,
        "metadata": {"of": "the test"},
    }
    assert client.create_collection(CITIES, vectors_config=vectors, **hints)
    assert client.collection_exists(CITIES)
    assert CITIES in [c.name for c in client.get_collections().collections]
    info = client.get_collection(CITIES)
    assert info.status == m.CollectionStatus.GREEN and info.points_count == 0
    assert (info.config.params.vectors.size, info.config.params.vectors.distance) == (DIM, m.Distance.COSINE)
    assert info.config.metadata == {"of": "the test"} and info.payload_schema == {}
    refused(409, "already", client.create_collection, CITIES, vectors_config=vectors)
    assert client.update_collection(CITIES, optimizers_config=m.OptimizersConfigDiff(indexing_threshold=0))
    assert client.get_collection_aliases(CITIES).aliases == [] and client.get_aliases().aliases == []
    for said, options in [
        ("named vectors", {"vectors_config": {"title": vectors}}),
        ("Manhattan", {"vectors_config": m.VectorParams(size=DIM, distance=m.Distance.MANHATTAN)}),
        ("sparse_vectors", {"vectors_config": vectors, "sparse_vectors_config": {"words": m.SparseVectorParams()}}),
        ("multivector_config", {"vectors_config": m.VectorParams(size=DIM, distance=m.Distance.COSINE,
            multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM))}),
        ("quantization_config", {"vectors_config": vectors, "quantization_config":
            m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8))}),
        ("shard", {"vectors_config": vectors, "shard_number": 2}),
        ("uint8", {"vectors_config": m.VectorParams(size=DIM, distance=m.Distance.DOT, datatype=m.Datatype.UINT8)}),
    ]:
        refused(400, said, client.create_collection, "other", **options)
    assert not client.collection_exists("other")


def upserts(client):
    done = client.upsert(CITIES, [m.PointStruct(id=i, vector=v, payload=p) for i, v, p in POINTS[:3]], wait=True)
    assert done.status == m.UpdateStatus.COMPLETED
    batch = m.Batch(ids=ALL[3:], vectors=[p[1] for p in POINTS[3:]], payloads=[p[2] for p in POINTS[3:]])
    again = client.upsert(CITIES, batch)
    assert again.operation_id > done.operation_id
    assert client.count(CITIES).count == 5
    refused(400, "3 numbers", client.upsert, CITIES, [
        m.PointStruct(id=90, vector=[1.0] * DIM), m.PointStruct(id=91, vector=[1.0] * 3)])
    assert client.retrieve(CITIES, [90, 91]) == []
    refused(404, "nowhere", client.upsert, "nowhere", [m.PointStruct(id=1, vector=[1.0] * DIM)])
    refused(400, "multivectors", client.upsert, CITIES, [m.PointStruct(id=1, vector=[[1.0] * DIM])])
    refused(400, "named vectors", client.upsert, CITIES, [m.PointStruct(id=1, vector={"title": [1.0] * DIM})])
    refused(400, "update_filter", client.upsert, CITIES, [m.PointStruct(id=1, vector=[1.0] * DIM)],
            update_filter=m.Filter(must=[m.HasIdCondition(has_id=[1])]))
    for number in ["NaN", "1e39", "Infinity"]:
        body = f'{{"points": [{{"id": 1, "vector": [{number}, 0, 0, 0]}}]}}'
        answer = httpx.put(f"{URL}/collections/{CITIES}/points", content=body,
                           headers={"api-key": KEY, "content-type": "application/json"})
        assert answer.status_code == 400 and answer.json()["status"]["error"], answer.text


def readings(client):
    found = client.retrieve(CITIES, [UUID, 404, 1, "string id"], with_vectors=True)
    assert ids(found) == [UUID, 1, "string id"]
    near(found[0].vector, [0.0, 1.0, 0.0, 0.0])
    near(found[2].vector, [0.0, 0.0, 1.0, 0.0])  # Stored at length 1.
    assert found[1].payload == POINTS[0][2]
    only = client.retrieve(CITIES, [1], with_payload=["city", "tags"])
    assert only[0].payload == {"city": "Rome", "tags": ["old", "sea"]} and only[0].vector is None
    less = client.retrieve(CITIES, [1], with_payload=m.PayloadSelectorExclude(exclude=["tags", "at", "people"]))
    assert less[0].payload == {"city": "Rome"}
    assert client.retrieve(CITIES, [1], with_payload=False)[0].payload is None
    # By ascending id: numbers, UUIDs, strings; a page at a time.
    seen, offset = [], None
    while True:
        page, offset = client.scroll(CITIES, limit=2, offset=offset)
        seen += ids(page)
        assert len(page) == 2 or offset is None
        if offset is None:
            break
    assert seen == [1, 2, 5, UUID, "string id"], seen
    page, offset = client.scroll(CITIES, limit=5)
    assert len(page) == 5 and offset is None
    refused(400, "order_by", client.scroll, CITIES, order_by="people")


def filters(client):
    def key(name, **test):
        return m.FieldCondition(key=name, **test)

    rome, oslo, bern, graz, five = ALL
    seen = key("name", match=m.MatchValue(value="abbey")), key("seen", match=m.MatchValue(value=True))
    for wanted, given in [
        ([rome], m.Filter(must=[key("city", match=m.MatchValue(value="Rome"))])),
        ([bern], m.Filter(must=[key("open", match=m.MatchValue(value=True))])),
        ([oslo, graz], m.Filter(must=[key("people", match=m.MatchAny(any=[7, 3]))])),
        ([rome, bern], m.Filter(must=[key("people", match=m.MatchExcept(**{"except": [7, 3]}))])),
        ([graz], m.Filter(must=[key("line", match=m.MatchText(text="Clock hills"))])),
        ([graz], m.Filter(must=[key("line", match=m.MatchTextAny(text_any="towers clock"))])),
        ([graz], m.Filter(must=[key("line", match=m.MatchPhrase(phrase="clock tower"))])),
        ([rome, oslo], m.Filter(must=[key("people", range=m.Range(gte=7))])),
        ([graz], m.Filter(must=[key("size", range=m.Range(gt=127.4, lt=127.6))])),
        ([oslo], m.Filter(must=[key("at", range=m.DatetimeRange(gt="2024-03-01T00:00:00Z"))])),
        ([rome, oslo], m.Filter(must=[key("tags", values_count=m.ValuesCount(gte=1))])),
        ([rome, graz], m.Filter(must=[m.HasIdCondition(has_id=[rome, graz, 77])])),
        ([bern, graz, five], m.Filter(must=[m.IsEmptyCondition(is_empty=m.PayloadField(key="tags"))])),
        ([bern], m.Filter(must=[m.IsNullCondition(is_null=m.PayloadField(key="none"))])),
        ([five], m.Filter(must=[key("sights[].seen", match=m.MatchValue(value=True))])),
        ([five], m.Filter(must=[key("sights[].name", match=m.MatchValue(value="abbey")),
                                key("sights[].seen", match=m.MatchValue(value=True))])),
        ([], m.Filter(must=[m.NestedCondition(nested=m.Nested(key="sights", filter=m.Filter(must=list(seen))))])),
        ([five], m.Filter(must_not=[key("city", match=m.MatchAny(any=["Rome", "Oslo", "Bern", "Graz"]))])),
        ([rome, bern], m.Filter(should=[key("city", match=m.MatchValue(value="Rome")),
                                        key("city", match=m.MatchValue(value="Bern"))])),
        ([rome], m.Filter(min_should=m.MinShould(min_count=2, conditions=[
            key("tags", match=m.MatchValue(value="sea")), key("people", range=m.Range(gt=10)),
            key("city", match=m.MatchValue(value="Bern"))]))),
        ([rome], m.Filter(must=[m.Filter(should=[key("city", match=m.MatchValue(value="Rome"))])],
                          must_not=[m.HasIdCondition(has_id=[oslo])])),
        (ALL, m.Filter()),
    ]:
        found, _ = client.scroll(CITIES, scroll_filter=given)
        assert sorted(map(str, ids(found))) == sorted(map(str, wanted)), (given, ids(found))
        assert client.count(CITIES, count_filter=given, exact=True).count == len(wanted), given
        found = client.query_points(CITIES, [1.0, 1.0, 1.0, 1.0], query_filter=given).points
        assert sorted(map(str, ids(found))) == sorted(map(str, wanted)), (given, ids(found))
    place = m.GeoRadius(center=m.GeoPoint(lon=1.0, lat=1.0), radius=3.0)
    refused(400, "geo_radius", client.count, CITIES, count_filter=m.Filter(must=[key("at", geo_radius=place)]))
    refused(400, "has_vector", client.count, CITIES,
            count_filter=m.Filter(must=[m.HasVectorCondition(has_vector="title")]))
    assert client.create_payload_index(CITIES, "city", m.PayloadSchemaType.KEYWORD).status == m.UpdateStatus.COMPLETED
    assert client.delete_payload_index(CITIES, "city").status == m.UpdateStatus.COMPLETED


def queries(client):
    found = client.query_points(CITIES, [1.0, 0.0, 0.0, 0.0], limit=2, with_payload=True, with_vectors=True).points
    assert ids(found) == [1, 2] and found[0].payload == POINTS[0][2]
    near([found[0].score, found[1].score], [1.0, unit(POINTS[1][1])[0]])
    near(found[1].vector, unit(POINTS[1][1]))
    rest = client.query_points(CITIES, [1.0, 0.0, 0.0, 0.0], limit=2, offset=1, with_payload=False).points
    assert ids(rest)[0] == 2 and rest[0].payload is None and rest[0].vector is None
    assert ids(client.query_points(CITIES, [1.0, 0.0, 0.0, 0.0], score_threshold=0.9).points) == [1, 2]
    # By a point, which is not among the answers itself.
    assert ids(client.query_points(CITIES, 1, limit=1).points) == [2]
    refused(404, "404", client.query_points, CITIES, 404)
    # Without a query: by id.
    assert ids(client.query_points(CITIES, limit=2, offset=1).points) == [2, 5]
    both = client.query_batch_points(CITIES, [
        m.QueryRequest(query=[0.0, 1.0, 0.0, 0.0], limit=1), m.QueryRequest(query=2, limit=1, with_payload=["city"])])
    assert [ids(one.points) for one in both] == [[UUID], [1]] and both[1].points[0].payload == {"city": "Rome"}
    refused(400, "3", client.query_points, CITIES, [1.0, 0.0, 0.0])
    refused(400, "named vectors", client.query_points, CITIES, [1.0] * DIM, using="title")
    refused(400, "recommend", client.query_points, CITIES, m.RecommendQuery(recommend=m.RecommendInput(positive=[1])))
    refused(400, "fusion", client.query_points, CITIES, m.FusionQuery(fusion=m.Fusion.RRF))
    refused(400, "prefetch", client.query_points, CITIES, [1.0] * DIM, prefetch=[m.Prefetch(query=[1.0] * DIM)])
    refused(400, "sample", client.query_points, CITIES, m.SampleQuery(sample=m.Sample.RANDOM))
    refused(400, "sparse", client.query_points, CITIES, m.SparseVector(indices=[1], values=[1.0]))
    refused(400, "groups", client.query_points_groups, CITIES, group_by="city", query=[1.0] * DIM)
    refused(400, "facets", client.facet, CITIES, key="city")
    refused(422, "limit", client.query_points, CITIES, [1.0] * DIM, limit=100_000)
    old = httpx.post(f"{URL}/collections/{CITIES}/points/search", headers={"api-key": KEY},
                     json={"vector": {"name": "", "vector": [1, 0, 0, 0]}, "limit": 1, "with_payload": True})
    assert [p["id"] for p in old.json()["result"]] == [1], old.text
    # A distance ascends, and a threshold is a maximum.
    euclid = m.VectorParams(size=2, distance=m.Distance.EUCLID)
    assert client.create_collection("flat", vectors_config={"": euclid})
    client.upsert("flat", [m.PointStruct(id=i, vector={"": [float(i), 0.0]}) for i in range(5)])
    found = client.query_points("flat", [0.0, 0.0], limit=3).points
    assert [(p.id, p.score) for p in found] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert ids(client.query_points("flat", [0.0, 0.0], score_threshold=1.5).points) == [0, 1]
    near(client.retrieve("flat", [4], with_vectors=True)[0].vector, [4.0, 0.0])
    assert client.delete_collection("flat") and not client.collection_exists("flat")


def edits(client):
    def payload(point):
        return client.retrieve(CITIES, [point])[0].payload

    client.set_payload(CITIES, {"people": 8, "new": {"a": 1}}, points=[2])
    assert payload(2) == {**POINTS[1][2], "people": 8, "new": {"a": 1}}
    client.set_payload(CITIES, {"b": 2}, key="new", points=[2])
    assert payload(2)["new"] == {"a": 1, "b": 2}
    client.delete_payload(CITIES, ["new.a", "tags"], points=[2])
    assert payload(2)["new"] == {"b": 2} and "tags" not in payload(2)
    client.overwrite_payload(CITIES, {"only": "this"}, points=[2])
    assert payload(2) == {"only": "this"}
    by_city = m.Filter(must=[m.FieldCondition(key="city", match=m.MatchValue(value="Bern"))])
    client.set_payload(CITIES, {"seen": True}, points=m.FilterSelector(filter=by_city))
    assert payload(UUID)["seen"] is True
    client.clear_payload(CITIES, points_selector=[2])
    assert payload(2) == {}
    refused(404, "404", client.set_payload, CITIES, {"a": 1}, points=[1, 404])
    assert payload(1)["a"] == 1
    client.update_vectors(CITIES, [m.PointVectors(id=2, vector=[0.0, 0.0, 0.0, 3.0])])
    near(client.retrieve(CITIES, [2], with_vectors=True)[0].vector, [0.0, 0.0, 0.0, 1.0])
    refused(400, "vector", client.delete_vectors, CITIES, vectors=[""], points=[2])
    done = client.batch_update_points(CITIES, [
        m.UpsertOperation(upsert=m.PointsList(points=[m.PointStruct(id=7, vector=[1.0, 2.0, 3.0, 4.0])])),
        m.SetPayloadOperation(set_payload=m.SetPayload(payload={"n": 7}, points=[7])),
        m.OverwritePayloadOperation(overwrite_payload=m.SetPayload(payload={"n": 8}, points=[7])),
        m.UpdateVectorsOperation(update_vectors=m.UpdateVectors(points=[m.PointVectors(id=7, vector=[0.0, 9.0, 0.0, 0.0])])),
        m.DeletePayloadOperation(delete_payload=m.DeletePayload(keys=["m"], points=[7])),
        m.ClearPayloadOperation(clear_payload=m.PointIdsList(points=[2])),
        m.DeleteOperation(delete=m.PointIdsList(points=[2])),
    ])
    assert len(done) == 7 and all(one.status == m.UpdateStatus.COMPLETED for one in done)
    seven = client.retrieve(CITIES, [7, 2], with_vectors=True)
    assert ids(seven) == [7] and seven[0].payload == {"n": 8}
    near(seven[0].vector, [0.0, 1.0, 0.0, 0.0])
    client.delete(CITIES, points_selector=[7, 404, "string id"])
    assert client.count(CITIES).count == 3
    client.delete(CITIES, points_selector=m.FilterSelector(filter=by_city))
    assert ids(client.scroll(CITIES)[0]) == [1, 5]


def texts(client, model):
    """Texts through the server's model, as clients with inference in the server send them."""
    def of(text):
        return m.Document(text=text, model=model)

    dim = len(httpx.post(f"{URL}/v1/embeddings", headers={"api-key": KEY},
                         json={"input": "a", "model": model}).json()["data"][0]["embedding"])
    vectors = m.VectorParams(size=dim, distance=m.Distance.COSINE)
    refused(400, "no-such-model", client.create_collection, "notes", vectors_config=vectors,
            metadata={"sela_model": "no-such-model"})
    assert client.create_collection("notes", vectors_config=vectors, metadata={"sela_model": model})
    client.upsert("notes", [
        m.PointStruct(id=1, vector=of("The meeting is moved to Thursday."), payload={"kind": "work"}),
        m.PointStruct(id=2, vector=of("Sow the beans after the last frost."), payload={"kind": "garden"}),
        m.PointStruct(id=3, vector=of("The tomatoes need water in the evening."), payload={"kind": "garden"})])
    found = client.query_points("notes", of("When do we meet?"), limit=1).points
    assert ids(found) == [1]
    garden = m.Filter(must=[m.FieldCondition(key="kind", match=m.MatchValue(value="garden"))])
    assert ids(client.query_points("notes", of("When do we meet?"), query_filter=garden).points) != [1]
    same = client.query_points("notes", m.NearestQuery(nearest=m.InferenceObject(object="When do we meet?",
        model=f"sentence-transformers/{model}")), limit=1).points
    assert ids(same) == [1] and same[0].score == found[0].score
    refused(400, "no-such-model", client.query_points, "notes", m.Document(text="a", model="no-such-model"))
    refused(400, "images", client.query_points, "notes", m.Image(image="a", model=model))
    refused(409, "vectors", client.query_points, CITIES, of("When do we meet?"))
    # The routes of documents see the same points.
    search = httpx.post(f"{URL}/v1/collections/notes/documents/search", headers={"api-key": KEY},
                        json={"query": "When do we meet?", "k": 1}).json()
    assert search["hits"][0]["id"] == 1 and search["hits"][0]["text"].startswith("The meeting")
    assert client.delete_collection("notes")


def snapshots(client):
    made = client.create_snapshot(CITIES)
    assert made.name.startswith(CITIES) and made.size > 0 and made.creation_time
    assert client.list_snapshots(CITIES) == [made]
    answer = httpx.get(f"{URL}/collections/{CITIES}/snapshots/{made.name}", headers={"api-key": KEY})
    names = tarfile.open(fileobj=io.BytesIO(answer.content)).getnames()
    assert "catalog.sqlite" in names, names
    refused(404, "snapshot", client.delete_snapshot, CITIES, "none.snapshot")
    assert client.delete_snapshot(CITIES, made.name)
    assert client.list_snapshots(CITIES) == []


def main():
    warnings.simplefilter("error")  # A version that does not fit is a warning.
    warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
    with warnings.catch_warnings():
        stranger = QdrantClient(url=URL, api_key="wrong", check_compatibility=False)
    refused(401, "key", stranger.get_collections)
    client = QdrantClient(url=URL, api_key=KEY, prefer_grpc=False, cloud_inference=True)
    listed = httpx.get(f"{URL}/v1/models", headers={"api-key": KEY}).json()
    model = listed["data"][0]["id"]
    collections(client)
    upserts(client)
    readings(client)
    filters(client)
    queries(client)
    edits(client)
    texts(client, model)
    snapshots(client)
    client.upload_points(CITIES, [m.PointStruct(id=uuid.uuid4().hex if i == 0 else i, vector=[float(i), 1.0, 0.0, 0.0])
                                  for i in range(200)], batch_size=64, wait=True)
    assert client.count(CITIES).count >= 200
    assert client.delete_collection(CITIES) and not client.delete_collection(CITIES)
    print("qdrant-client: all answers are as they must be")


main()
