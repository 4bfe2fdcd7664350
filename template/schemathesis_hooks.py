# Platform-owned: `copier update` replaces this file. A change for all services belongs in the template.
"""Give each request of Schemathesis an idempotency key of its own, because a key with two bodies is refused."""

import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_: Any, case: Any, **__: Any) -> None:
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if positive and case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
