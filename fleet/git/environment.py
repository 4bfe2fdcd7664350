"""The environment variables that git gets: none of another repository, and no configuration."""

import os

# The variables that `git rev-parse --local-env-vars` lists, in all versions of git, except the variables that carry
# configuration, because CI may pass a proxy, a certificate or a token in them.
OF_A_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}

# The committer, and the folder of git's own programs. Git gets no other variable that begins with GIT_.
_KEPT = {f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")} | {"GIT_EXEC_PATH"}

# With these variables git reads no configuration of a person or a machine, asks nothing, fetches nothing, and replaces no commit.
_ALONE = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_GRAFT_FILE": os.path.join(os.devnull, "none"),
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


def without_repository() -> dict[str, str]:
    """Return the variables for git outside of any repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT} | _ALONE
