"""Who is asked next: the planner for questions, probes for facts, the engine for updates."""
