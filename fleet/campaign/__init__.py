"""`fleet campaign` and `fleet nudge`: what the services of a group are to reach, who has reached it, and whom to ask."""
