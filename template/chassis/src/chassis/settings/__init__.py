"""The settings of a service, and the checks of the URLs among them."""

from chassis.settings.settings import BrokerSettings, CommandSettings, S, Settings, SettingsError, read

__all__ = ["BrokerSettings", "CommandSettings", "S", "Settings", "SettingsError", "read"]
