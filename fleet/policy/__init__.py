"""The platform's policy: policy.toml, and the traits by which the policy groups services."""
