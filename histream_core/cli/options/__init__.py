"""Options that several verbs share, and their conversion to values."""
