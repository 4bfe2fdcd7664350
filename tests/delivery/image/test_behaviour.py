"""The image of a generated service, run by a real engine with the restrictions of production, tested from outside."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.delivery.image import checks
from tests.delivery.image.world import World

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]

Check = Callable[[World, str], None]


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_a_container_of_the_image(check: Check, world: World, image: str) -> None:
    check(world, image)


@dataclass(frozen=True)
class Spoilt:
    """Instructions that break an image for one check."""

    check: Check
    instructions: tuple[str, ...]


CHASSIS = "$(dirname $(python -c 'import chassis; print(chassis.__file__)'))"
AS_ROOT, AS_BEFORE = "USER root", "USER 65532:65532"

SPOILT = {
    "a start that keeps its reason to itself": Spoilt(
        checks.refuses_to_start_with_a_missing_or_malformed_setting,
        ('ENTRYPOINT ["sh", "-c", "exec python -m billing $0 2>/dev/null"]',),
    ),
    "a listener on the loopback interface": Spoilt(
        checks.listens_on_the_address_of_the_settings, ("ENV HTTP_HOST=127.0.0.1",)
    ),
    "an entry point that can only serve": Spoilt(
        checks.migrates_by_command, ('ENTRYPOINT ["python", "-m", "billing", "serve"]',)
    ),
    "a readiness that does not ask the database": Spoilt(
        checks.tells_the_truth_while_the_database_is_away,
        (
            AS_ROOT,
            f"RUN sed -i 's/database = await _database_state.*/database = State.OK/w /tmp/changed' {CHASSIS}/web/probes.py"
            " && test -s /tmp/changed",
            AS_BEFORE,
        ),
    ),
    "a shell in between that passes no signal on": Spoilt(
        checks.finishes_accepted_requests_when_told_to_stop,
        ("""ENTRYPOINT ["sh", "-c", "trap 'exit 143' TERM; python -m billing serve & wait"]""",),
    ),
    "another signal": Spoilt(checks.finishes_accepted_requests_when_told_to_stop, ("STOPSIGNAL SIGKILL",)),
    "logs for people": Spoilt(checks.logs_json_with_trace_ids, ("ENV LOG_FORMAT=console",)),
    "a line for each request": Spoilt(checks.logs_json_with_trace_ids, ("ENV LOG_REQUESTS=true",)),
    "no line for any request": Spoilt(
        checks.logs_requests_if_a_setting_asks, ('ENTRYPOINT ["env", "LOG_REQUESTS=false", "python", "-m", "billing"]',)
    ),
    "logs for machines alone": Spoilt(
        checks.logs_for_people_if_a_setting_asks, ('ENTRYPOINT ["env", "LOG_FORMAT=json", "python", "-m", "billing"]',)
    ),
    "no version": Spoilt(checks.serves_and_works_as_the_same_build, ("ENV SERVICE_VERSION=0.0.0",)),
    "no client of the broker": Spoilt(
        checks.serves_and_works_as_the_same_build,
        (AS_ROOT, "RUN rm -r $(dirname $(python -c 'import nats; print(nats.__file__)'))", AS_BEFORE),
    ),
    "no check of its health": Spoilt(checks.says_whether_it_is_healthy, ("HEALTHCHECK NONE",)),
    "a check of its health that cannot fail": Spoilt(checks.says_whether_it_is_healthy, ('HEALTHCHECK CMD ["true"]',)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_image_is_noticed(name: str, world: World, image: str) -> None:
    spoilt = world.engine.derive("slipway-test:spoilt", image, *SPOILT[name].instructions)
    with pytest.raises(AssertionError):
        SPOILT[name].check(world, spoilt)
