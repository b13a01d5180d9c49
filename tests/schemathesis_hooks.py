"""What schemathesis changes of the requests it makes."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """A benchmark that would begin is made a quick one: the long one takes minutes."""
    if case.path == "/api/v1/metal4/benchmark" and isinstance(case.body, dict) and case.body.get("quick") is False:
        case.body["quick"] = True
