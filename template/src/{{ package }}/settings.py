"""What this service can be told, beside what every service can (chassis.settings)."""

import chassis.settings


class Settings(chassis.settings.Settings):
    """Add a field, and its name in capitals is the environment variable. Secrets are SecretStr, without a default."""
