"""The settings of this service, in addition to the settings of every service (chassis.settings)."""

import chassis.settings


class Settings(chassis.settings.Settings):
    """Add a field, and its name in capitals is the environment variable. Secrets are SecretStr, without a default."""
