"""The settings of this service, in addition to the settings of every service (chassis.settings)."""

import chassis.settings


class Settings(chassis.settings.Settings):
    """Add fields here. A field's environment variable has its name in capitals. Secrets are SecretStr, without a default."""
