"""Side-by-side measurements: media_fork beside the two patterns people use today, under the same load in one run."""
