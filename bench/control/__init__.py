"""What esl_app costs: calls a second on one core, the time it adds to an answer, memory and events of calls that are held."""
