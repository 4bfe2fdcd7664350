"""Read migrations as SQL without running code of a service with any effect (docs/decisions/0050).

program.py compiles a migration by RestrictedPython: syntax.py has the permitted syntax, allowed.py the permitted names, and
guards.py the functions that every attribute, call and import of a migration goes through. wall.py is a second line of defence:
while a migration runs, Python itself refuses access to the system.
"""
