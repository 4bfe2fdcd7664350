"""The settings of this service, in addition to the settings of every service (chassis.settings)."""

from chassis.identity import OidcSettings
from chassis.neighbours import NeighbourSettings
from pydantic import HttpUrl


class Settings(NeighbourSettings, OidcSettings):
    """Add a field for each setting. Its environment variable is the name in capitals. Secrets are SecretStr, without a default."""

    payments_url: HttpUrl | None = None
