"""The platform's policy: policy.toml, and the traits of a service by which it groups services."""
