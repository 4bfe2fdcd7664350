"""The settings of this service, in addition to the settings of every service (chassis.settings)."""

import chassis.settings


class Settings(chassis.settings.Settings):
    """Add a field for each setting. Its environment variable is the name in capitals. Secrets are SecretStr, without a default."""
