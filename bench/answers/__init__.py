"""How often the answer detection errs, and how soon it decides, on recordings made here."""
