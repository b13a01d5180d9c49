"""Holds a server against LangChain's Qdrant store, its own model making the vectors.

Run with SELA_URL and SELA_KEY in the environment.
"""

import os
import uuid

import httpx
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models as m

URL, KEY = os.environ["SELA_URL"], os.environ["SELA_KEY"]
HEADERS = {"authorization": f"Bearer {KEY}"}
NOTES = {
    "The meeting is moved to Thursday.": {"kind": "work", "year": 2024},
    "Sow the beans after the last frost.": {"kind": "garden", "year": 2023},
    "The tomatoes need water in the evening.": {"kind": "garden", "year": 2024},
    "The train to the coast leaves at nine.": {"kind": "travel", "year": 2025},
}


class ServerEmbeddings(Embeddings):
    """Vectors from the server's own /v1/embeddings."""

    def __init__(self):
        self.model = httpx.get(f"{URL}/v1/models", headers=HEADERS).json()["data"][0]["id"]

    def embed_documents(self, texts):
        body = {"input": list(texts), "model": self.model}
        answer = httpx.post(f"{URL}/v1/embeddings", headers=HEADERS, json=body, timeout=60)
        answer.raise_for_status()
        return [one["embedding"] for one in answer.json()["data"]]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


def main():
    embeddings = ServerEmbeddings()
    options = {"url": URL, "api_key": KEY, "prefer_grpc": False, "collection_name": "langchain"}
    texts, kinds = list(NOTES), list(NOTES.values())
    names = [str(uuid.uuid4()) for _ in texts]
    store = QdrantVectorStore.from_texts(texts, embeddings, metadatas=kinds, ids=names, force_recreate=True, **options)
    found = store.similarity_search("When do we meet?", k=2)
    assert len(found) == 2 and found[0].page_content == texts[0], found
    assert found[0].metadata["kind"] == "work"
    scored = store.similarity_search_with_score("When do we meet?", k=4)
    scores = [score for _, score in scored]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] <= 1, scores
    garden = m.Filter(must=[m.FieldCondition(key="metadata.kind", match=m.MatchValue(value="garden"))])
    found = store.similarity_search("When do we meet?", k=4, filter=garden)
    assert sorted(one.page_content for one in found) == sorted(texts[1:3])
    late = m.Filter(must=[m.FieldCondition(key="metadata.year", range=m.Range(gte=2025))])
    assert [one.page_content for one in store.similarity_search("a", filter=late)] == texts[3:]
    close = store.similarity_search_with_score("When do we meet?", k=4, score_threshold=scores[0] - 1e-4)
    assert [one.page_content for one, _ in close] == texts[:1]
    diverse = store.max_marginal_relevance_search("plants", k=2, fetch_k=4)
    assert len({one.page_content for one in diverse}) == 2
    added = store.add_documents([Document(page_content="The bakery opens at six.", metadata={"kind": "food"})])
    assert len(added) == 1
    assert store.similarity_search("When can I buy bread?", k=1)[0].page_content == "The bakery opens at six."
    assert [one.page_content for one in store.get_by_ids(added)] == ["The bakery opens at six."]
    assert store.delete(added)
    assert store.get_by_ids(added) == []
    again = QdrantVectorStore.from_existing_collection(embedding=embeddings, **options)
    assert again.similarity_search("When do we meet?", k=1)[0].page_content == texts[0]
    retriever = again.as_retriever(search_kwargs={"k": 1})
    assert retriever.invoke("What do plants need?")[0].metadata["kind"] == "garden"
    client = QdrantClient(url=URL, api_key=KEY)
    assert client.count("langchain").count == len(texts)
    assert client.delete_collection("langchain")
    print("langchain-qdrant: all answers are as they must be")


main()
