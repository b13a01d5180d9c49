"""The official OpenAI client, unchanged but for its address and its key.

Run by tests/clients/run with SELA_URL and SELA_KEY in the environment.
"""

import base64
import math
import os
import struct

import openai

MODEL = "all-MiniLM-L6-v2"
ALIAS = "text-embedding-3-small"
DIM = 384
TEXTS = ["The meeting is moved to Thursday.", "A river of stone", "", "naïve café, 東京 🙂"]


def client(key=None):
    url, key = os.environ["SELA_URL"] + "/v1", key or os.environ["SELA_KEY"]
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def refused(kind, ask, *words):
    """Asks for what must be refused with this class of error, in these words."""
    try:
        ask()
    except kind as error:
        for word in words:
            assert word in str(error), f"`{word}` is not in: {error}"
        assert error.request_id, "an error without x-request-id"
        return error
    raise AssertionError(f"no {kind.__name__}")


def vectors_of_every_form(api):
    one = api.embeddings.create(model=MODEL, input=TEXTS[0])
    assert one.object == "list" and one.model == MODEL and len(one.data) == 1
    assert one.data[0].object == "embedding" and one.data[0].index == 0
    vector = one.data[0].embedding
    assert len(vector) == DIM and abs(math.sqrt(sum(x * x for x in vector)) - 1) < 1e-3
    assert one.usage.prompt_tokens == one.usage.total_tokens > 3

    # Without an encoding the client asks for base64 and decodes it; both ways are the same numbers.
    many = api.embeddings.create(model=MODEL, input=TEXTS)
    assert [item.index for item in many.data] == list(range(len(TEXTS)))
    assert many.data[0].embedding == vector, "a batch changes a vector"
    plain = api.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    for mine, theirs in zip(plain.data, many.data):
        assert all(abs(a - b) < 1e-7 for a, b in zip(mine.embedding, theirs.embedding))
    text = api.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="base64").data[0].embedding
    assert isinstance(text, str)
    assert list(struct.unpack(f"<{DIM}f", base64.b64decode(text))) == vector
    return vector


def shortened(api, vector):
    for dimensions in (1, 64, DIM):
        short = api.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=dimensions).data[0].embedding
        assert len(short) == dimensions
        assert abs(sum(x * x for x in short) - 1) < 1e-3
        assert cosine(short, vector[:dimensions]) > 0.999999
    for dimensions in (0, DIM + 1):
        ask = lambda: api.embeddings.create(model=MODEL, input="a", dimensions=dimensions)
        error = refused(openai.BadRequestError, ask, "dimensions", str(dimensions))
        assert error.param == "dimensions" and error.type == "invalid_request_error"


def models(api, vector):
    names = {model.id for model in api.models.list()}
    assert names == {MODEL, ALIAS, "text-embedding-ada-002"}, names
    assert api.models.retrieve(ALIAS).id == ALIAS
    aliased = api.embeddings.create(model=ALIAS, input=TEXTS[0])
    assert aliased.model == ALIAS and aliased.data[0].embedding == vector
    ask = lambda: api.embeddings.create(model="text-embedding-3-large", input="a")
    error = refused(openai.NotFoundError, ask, "text-embedding-3-large", MODEL, "openai.aliases")
    assert error.code == "model_not_found" and error.param == "model"
    refused(openai.NotFoundError, lambda: api.models.retrieve("gpt-4o"), "gpt-4o")


def refusals(api):
    option = "check_embedding_ctx_length=False"
    for tokens in ([9906, 1917], [[9906, 1917], [1]]):
        error = refused(openai.BadRequestError, lambda: api.embeddings.create(model=MODEL, input=tokens), option)
        assert error.code == "tokens" and error.param == "input"
    refused(openai.BadRequestError, lambda: api.embeddings.create(model=MODEL, input=[]), "empty")
    refused(openai.BadRequestError, lambda: api.embeddings.create(model=MODEL, input=[None]), "input")
    wrong = client("sela_" + "0" * 43)
    error = refused(openai.AuthenticationError, lambda: wrong.embeddings.create(model=MODEL, input="a"))
    assert error.type == "authentication_error"
    refused(openai.NotFoundError, lambda: api.chat.completions.create(model=MODEL, messages=[]))


def main():
    with client() as api:
        vector = vectors_of_every_form(api)
        shortened(api, vector)
        models(api, vector)
        refusals(api)
    print(f"openai {openai.__version__}: embeddings, dimensions, aliases, models, refusals")


main()
