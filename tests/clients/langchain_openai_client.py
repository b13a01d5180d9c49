"""LangChain's OpenAIEmbeddings, with the one option that it needs and without it.

Run by tests/clients/run with SELA_URL and SELA_KEY in the environment.
"""

import asyncio
import importlib.metadata
import os

import openai
import tiktoken
from langchain_openai import OpenAIEmbeddings

OPTION = "check_embedding_ctx_length=False"
TEXTS = ["The meeting is moved to Thursday.", "Bread is baked in the morning."]


def embeddings(**options):
    """As an application makes them; the alias stands for its model of today."""
    return OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=os.environ["SELA_URL"] + "/v1",
        api_key=os.environ["SELA_KEY"],
        max_retries=0,
        **options,
    )


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def main():
    model = embeddings(check_embedding_ctx_length=False)
    query = model.embed_query("When do we meet?")
    assert len(query) == 384
    documents = model.embed_documents(TEXTS)
    assert len(documents) == 2 and dot(query, documents[0]) > dot(query, documents[1])
    assert documents[0] == model.embed_query(TEXTS[0]), "a batch changes a vector"
    assert asyncio.run(model.aembed_documents(TEXTS)) == documents
    many = model.embed_documents([f"text {n}" for n in range(2500)])
    assert len(many) == 2500 and many[7] == model.embed_query("text 7")
    assert len(embeddings(check_embedding_ctx_length=False, dimensions=64).embed_query("a")) == 64

    # By default LangChain sends tokens of OpenAI's vocabularies, which it fetches from the web. One of
    # single bytes takes their place here: the request has the same form.
    letters = {bytes([byte]): byte for byte in range(256)}
    bare = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=letters, special_tokens={})
    tiktoken.encoding_for_model = lambda _: bare
    default = embeddings()
    try:
        default.embed_documents(TEXTS)
    except openai.BadRequestError as error:
        assert OPTION in str(error), error
    else:
        raise AssertionError("tokens are not refused")
    version = importlib.metadata.version("langchain-openai")
    print(f"langchain-openai {version}: queries, documents, the refusal of tokens")


main()
