"""A whole telephone world for a laptop: carrier, PBX, switch and model stand-ins, and a caller who speaks."""
