"""What schemathesis changes of the requests it makes."""

import itertools
import os

import requests
import schemathesis
from schemathesis import GenerationMode

DOCUMENTS = "/v1/collections/notes/documents"
turns = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    made_right = case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    if case.path == "/api/v1/metal4/benchmark" and made_right:
        # The long one takes minutes.
        case.body, case.media_type = {"quick": True}, "application/json"
    if case.path == "/v1/collections/{collection}/documents/{id}" and made_right and next(turns) % 2:
        # Made-up names find nothing: every other request is for a document that is there.
        key = {"authorization": f"Bearer {os.environ['SELA_KEY']}"}
        document = {"id": 1, "text": "river stone", "payload": {"a": [1, None]}}
        requests.post(os.environ["SELA_URL"] + DOCUMENTS, json={"documents": [document]}, headers=key).raise_for_status()
        case.path_parameters = {"collection": "notes", "id": "1"}
